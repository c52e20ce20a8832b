# Yes/no and count models by lme4's glmer, and by glmmTMB where the two define the Laplace approximation differently (probit:
# glmer takes the expected curvature, glmmTMB and send_va the observed one), on data made here; writes input.csv, reference.json and effects.csv beside itself.
# Run: Rscript make_reference.R   (R 4.2.2, lme4 1.1-31, glmmTMB 1.1.5)
suppressMessages({library(lme4); library(glmmTMB)})
set.seed(20261121)
n <- 1200
school <- sample(1:24, n, TRUE); la <- (school - 1) %/% 4 + 1; feeder <- sample(1:40, n, TRUE)
d <- data.frame(la, school, feeder, prior = round(rnorm(n), 3), fsm = rbinom(n, 1, .3), trials = sample(1:6, n, TRUE))
u <- MASS::mvrnorm(24, c(0, 0), matrix(c(.4, .1, .1, .15), 2)); f <- rnorm(40, 0, .5); v <- rnorm(6, 0, .4)
eta <- -.5 - .7 * d$prior + .4 * d$fsm + u[school, 1] + u[school, 2] * d$prior + f[feeder] + v[la]
d$y <- rbinom(n, 1, plogis(eta)); d$k <- rbinom(n, d$trials, plogis(eta))
write.csv(d, "input.csv", row.names = FALSE, quote = FALSE)
tight <- glmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5), tolPwrss = 1e-10)
one <- function(formula, link = "logit", points = 1) {
  fit <- glmer(formula, d, family = binomial(link), nAGQ = points, control = tight)
  vc <- as.data.frame(VarCorr(fit))
  list(formula = deparse1(formula), link = link, points = points, logLik = as.numeric(logLik(fit)),
       fixef = as.list(fixef(fit)), se = as.list(sqrt(diag(as.matrix(vcov(fit))))),
       varcorr = lapply(seq_len(nrow(vc)), function(i) as.list(vc[i, c("grp", "var1", "var2", "vcov")])), fit = fit)
}
out <- list(
  crossed_slope = one(y ~ prior + fsm + (1 + prior | school) + (1 | feeder)),
  counts = one(cbind(k, trials - k) ~ prior + fsm + (1 | school) + (1 | feeder)),
  quadrature = one(y ~ prior + fsm + (1 | feeder), points = 9),
  quadrature_probit = one(y ~ prior + fsm + (1 | feeder), "probit", points = 9)
)
effects <- do.call(rbind, lapply(names(out), function(name) {
  e <- as.data.frame(ranef(out[[name]]$fit, condVar = TRUE)); e$model <- name; e
}))
probit <- glmmTMB(y ~ prior + fsm + (1 | feeder) + (1 | school) + (1 | la), d, binomial("probit"))
b <- as.data.frame(ranef(probit))
effects <- rbind(effects, data.frame(grpvar = b$grpvar, term = b$term, grp = b$grp, condval = b$condval, condsd = b$condsd,
                                     model = "crossed_nested_probit"))
out$crossed_nested_probit <- list(
  formula = deparse1(formula(probit)), link = "probit", points = 1, logLik = as.numeric(logLik(probit)),
  fixef = as.list(fixef(probit)$cond), se = as.list(sqrt(diag(vcov(probit)$cond))),
  varcorr = lapply(names(VarCorr(probit)$cond), function(g)
    list(grp = g, var1 = "(Intercept)", var2 = NULL, vcov = VarCorr(probit)$cond[[g]][1, 1])), program = "glmmTMB")
for (name in names(out)) out[[name]]$fit <- NULL
# lme4 leaves the binomial constant out of the log-likelihood where nAGQ > 1; these are yes/no models, where it is zero.
out$program <- paste("lme4", packageVersion("lme4"), "glmmTMB", packageVersion("glmmTMB"), R.version.string)
write.csv(effects, "effects.csv", row.names = FALSE, quote = FALSE)
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = 12, pretty = TRUE, null = "null", na = "null"), "reference.json")
