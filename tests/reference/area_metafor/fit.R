# Fay-Herriot with and without an area level by metafor. Run in this folder: Rscript fit.R > fit.json
# input.csv is synthetic (12 areas, 60 units).
suppressMessages({library(metafor); library(jsonlite)})
d <- read.csv("input.csv")
d$unit <- seq_len(nrow(d))
control <- list(optimizer = "optim", optmethod = "BFGS", reltol = 1e-15, maxit = 2000)
nested <- function(method) {
  fit <- rma.mv(y ~ x, V = se^2, random = ~ 1 | area/unit, data = d, method = method, control = control)
  blup <- ranef(fit)
  list(params = c(fit$beta), bse = fit$se, area_variance = fit$sigma2[1], tau2 = fit$sigma2[2],
       llf = as.numeric(logLik(fit)),
       area = list(level = rownames(blup[[1]]), estimate = blup[[1]]$intrcpt, se = blup[[1]]$se),
       unit = list(estimate = blup[[2]]$intrcpt, se = blup[[2]]$se))
}
plain <- function(method) {
  fit <- rma(y ~ x, sei = se, data = d, method = method, control = list(threshold = 1e-12, maxiter = 1000))
  deviation <- ranef(fit)
  theta <- blup(fit)
  list(params = c(fit$beta), bse = fit$se, tau2 = fit$tau2, tau2_se = fit$se.tau2, llf = as.numeric(logLik(fit)),
       unit = list(estimate = deviation$pred, se = deviation$se), theta = list(estimate = theta$pred, se = theta$se))
}
cat(toJSON(list(program = paste("metafor", packageVersion("metafor"), R.version.string),
                nested = list(REML = nested("REML"), ML = nested("ML")),
                plain = list(REML = plain("REML"), ML = plain("ML"))),
           digits = NA, auto_unbox = TRUE, pretty = TRUE), "\n")
