# Crossed models by lme4 (feeder x school, schools nested in authorities), on synthetic data made here; writes input.csv,
# reference.json and effects.csv beside itself. Run: Rscript make_reference.R   (R 4.2.2, lme4 1.1-31)
suppressMessages(library(lme4))
set.seed(20261122)
n <- 1400
school <- sample(1:40, n, TRUE)
feeder <- ifelse(runif(n) < .7, 2 * school - sample(0:1, n, TRUE), sample(1:90, n, TRUE))
d <- data.frame(la = (school - 1) %/% 5 + 1, school = school, feeder = feeder, prior = round(rnorm(n), 3),
                need = rbinom(n, 1, .25), w = round(runif(n, .5, 2), 2))
f <- MASS::mvrnorm(90, c(0, 0), matrix(c(.16, .03, .03, .05), 2))
u <- MASS::mvrnorm(40, c(0, 0), matrix(c(.20, -.04, -.04, .25), 2))
v <- rnorm(8, 0, .5)
d$y <- round(1 + .6 * d$prior - .3 * d$need + f[feeder, 1] + f[feeder, 2] * d$prior + u[school, 1] +
             u[school, 2] * d$need + v[d$la] + rnorm(n, 0, .8) / sqrt(d$w), 4)
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
all <- y ~ prior + need + (1 + prior | feeder) + (1 + need | school) + (1 | la)
out <- list(
  slopes_reml = one(all, TRUE),
  slopes_ml_weighted = one(all, FALSE, "w"),
  intercepts_reml = one(y ~ prior + (1 | feeder) + (1 | school), TRUE)
)
effects <- do.call(rbind, lapply(names(out), function(name) {
  e <- as.data.frame(ranef(out[[name]]$fit, condVar = TRUE)); e$model <- name; e
}))
for (name in names(out)) out[[name]]$fit <- NULL
out$program <- paste("lme4", packageVersion("lme4"), R.version.string)
write.csv(effects, "effects.csv", row.names = FALSE, quote = FALSE)
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = 12, pretty = TRUE, null = "null", na = "null"), "reference.json")
