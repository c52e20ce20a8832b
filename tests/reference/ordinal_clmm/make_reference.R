# Cumulative models by ordinal's clmm and MASS's polr, on data made here; writes input.csv, reference.json, effects.csv.
# Run: Rscript make_reference.R   (R 4.2.2, ordinal 2022.11.16, MASS 7.3)
suppressMessages({library(ordinal); library(MASS)})
set.seed(20261122)
n <- 1200
school <- sample(1:24, n, TRUE); feeder <- sample(1:40, n, TRUE)
d <- data.frame(school, feeder, prior = round(rnorm(n), 3), fsm = rbinom(n, 1, .3))
u <- mvrnorm(24, c(0, 0), matrix(c(.25, .05, .05, .1), 2)); f <- rnorm(40, 0, .4)
need <- -.6 * d$prior + .3 * d$fsm + u[school, 1] + u[school, 2] * d$prior + f[feeder] + rnorm(n)
d$status <- factor(c("N", "K", "E")[1 + (need > .8) + (need > 1.7)], levels = c("N", "K", "E"), ordered = TRUE)
write.csv(d, "input.csv", row.names = FALSE, quote = FALSE)
d$school <- factor(d$school); d$feeder <- factor(d$feeder)
one <- function(formula, link, points = 1) {
  fit <- clmm(formula, d, link = link, nAGQ = points, control = clmm.control(gradTol = 1e-8, grtol = 1e-8))
  k <- length(fit$coefficients)
  vc <- lapply(names(VarCorr(fit)), function(g) list(grp = g, cov = unname(as.matrix(VarCorr(fit)[[g]]))))
  list(formula = deparse1(formula), link = link, points = points, logLik = as.numeric(logLik(fit)),
       coef = as.list(coef(fit)), se = as.list(sqrt(diag(vcov(fit)))[1:k]), varcorr = vc, fit = fit)
}
out <- list(
  crossed_probit = one(status ~ prior + fsm + (1 | school) + (1 | feeder), "probit"),
  slope_logit = one(status ~ prior + fsm + (1 + prior | school), "logit"),
  quadrature_probit = one(status ~ prior + fsm + (1 | feeder), "probit", 9)
)
effects <- do.call(rbind, lapply(names(out), function(name) {
  do.call(rbind, lapply(names(ranef(out[[name]]$fit)), function(g) {
    b <- ranef(out[[name]]$fit)[[g]]; v <- condVar(out[[name]]$fit)[[g]]
    if (name == "slope_logit") v <- b * NA  # condVar does not give these as one table
    do.call(rbind, lapply(seq_len(ncol(b)), function(k)
      data.frame(model = name, grpvar = g, term = colnames(b)[k], grp = rownames(b), condval = b[[k]], condsd = sqrt(v[[k]]))))
  }))
}))
for (name in names(out)) out[[name]]$fit <- NULL
plain <- polr(status ~ prior + fsm, d, method = "probit", Hess = TRUE)
out$polr_probit <- list(logLik = as.numeric(logLik(plain)), coef = as.list(c(plain$zeta, coef(plain))))
out$program <- paste("ordinal", packageVersion("ordinal"), "MASS", packageVersion("MASS"), R.version.string)
write.csv(effects, "effects.csv", row.names = FALSE, quote = FALSE)
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = 12, pretty = TRUE, null = "null", na = "null"), "reference.json")
