# A random-slope model with one residual variance for each SEN status, by nlme, on data made here.
# Writes input.csv and reference.json beside itself. Run: Rscript make_reference.R
suppressMessages(library(nlme))
set.seed(20261122)
school <- rep(1:60, times = sample(20:60, 60, TRUE))
n <- length(school)
status <- sample(c("N", "K", "E"), n, TRUE, c(.7, .2, .1))
need <- as.numeric(status != "N"); ehcp <- as.numeric(status == "E")
prior <- round(rnorm(n, 100, 8), 1)
u <- MASS::mvrnorm(60, c(0, 0), matrix(c(9, 1.5, 1.5, 5), 2))
sd <- c(N = 8, K = 11, E = 14)[status]
d <- data.frame(school, status, need, ehcp, prior,
                y = round(45 + .9 * (prior - 100) - 5 * need - 4 * ehcp + u[school, 1] + u[school, 2] * need + rnorm(n, 0, sd), 2))
write.csv(d, "input.csv", row.names = FALSE, quote = FALSE)
one <- function(method) {
  fit <- lme(y ~ need + ehcp + prior, d, random = ~ 1 + need | school, weights = varIdent(form = ~ 1 | status),
             method = method, control = lmeControl(msMaxIter = 500, niterEM = 100, tolerance = 1e-10, msTol = 1e-12, opt = "nlminb"))
  ratio <- coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
  G <- as.matrix(getVarCov(fit))
  list(logLik = as.numeric(logLik(fit)), fixef = as.list(fixef(fit)), se = as.list(sqrt(diag(vcov(fit)))),
       residual_sd = as.list(fit$sigma * ratio[c("N", "K", "E")]), G = c(G[1, 1], G[1, 2], G[2, 2]),
       ranef = as.matrix(ranef(fit)))
}
out <- list(reml = one("REML"), ml = one("ML"), program = paste("nlme", packageVersion("nlme"), R.version.string))
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = 10, pretty = TRUE), "reference.json")
