# Three-level nested models by lme4, on data made here; writes input.csv, reference.json and effects.csv beside itself.
# Run: Rscript make_reference.R   (R 4.2.2, lme4 1.1-31)
suppressMessages(library(lme4))
set.seed(20261121)
la <- rep(1:15, times = rep(c(3, 5, 8), 5))          # 80 schools in 15 authorities
school <- rep(seq_along(la), times = sample(5:40, length(la), TRUE))
n <- length(school)
d <- data.frame(la = la[school], school = school, prior = round(rnorm(n), 3), need = rbinom(n, 1, .2))
d$w <- round(runif(n, .5, 2), 2)
u <- MASS::mvrnorm(80, c(0, 0, 0), matrix(c(.09, .02, .01, .02, .16, 0, .01, 0, .03), 3))
v <- MASS::mvrnorm(15, c(0, 0), matrix(c(.08, .02, .02, .06), 2))
d$y <- round(1 + .6 * d$prior - .3 * d$need + v[d$la, 1] + v[d$la, 2] * d$need + u[d$school, 1] + u[d$school, 2] * d$need +
             u[d$school, 3] * d$prior + rnorm(n, 0, .8) / sqrt(d$w), 4)
write.csv(d, "input.csv", row.names = FALSE, quote = FALSE)
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-11, maxfun = 1e5), calc.derivs = FALSE)
one <- function(formula, reml, weights = NULL) {
  d$.w <- if (is.null(weights)) rep(1, n) else d[[weights]]
  fit <- lmer(formula, d, REML = reml, weights = .w, control = tight)
  vc <- as.data.frame(VarCorr(fit))
  list(formula = deparse1(formula), reml = reml, weights = weights, logLik = as.numeric(logLik(fit)),
       fixef = as.list(fixef(fit)), se = as.list(sqrt(diag(as.matrix(vcov(fit))))), sigma2 = sigma(fit)^2,
       varcorr = lapply(seq_len(nrow(vc)), function(i) as.list(vc[i, c("grp", "var1", "var2", "vcov")])), fit = fit)
}
out <- list(
  two_levels_reml = one(y ~ prior + need + (1 | la) + (1 + need + prior | school), TRUE),
  two_levels_ml = one(y ~ prior + need + (1 | la) + (1 + need + prior | school), FALSE),
  slope_of_la_weighted = one(y ~ prior + need + (1 + need | la) + (1 | school), TRUE, "w")
)
effects <- do.call(rbind, lapply(names(out), function(name) {
  e <- as.data.frame(ranef(out[[name]]$fit, condVar = TRUE)); e$model <- name; e
}))
for (name in names(out)) out[[name]]$fit <- NULL
out$program <- paste("lme4", packageVersion("lme4"), R.version.string)
write.csv(effects, "effects.csv", row.names = FALSE, quote = FALSE)
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = 12, pretty = TRUE, null = "null", na = "null"), "reference.json")
