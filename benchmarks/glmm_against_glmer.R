# The peer's side of benchmarks/glmm_against_glmer.py: reads records.csv in the working directory, times glmer's calls alone.
suppressMessages(library(lme4))
d <- read.csv("records.csv")
form <- sen ~ prior + fsm + eal + male + month + idaci + e1 + e2 + e3 + e4 + e5 + (1 | school)
for (points in c(1, 0)) {
  invisible(gc())
  seconds <- system.time(fit <- glmer(form, d, family = binomial, nAGQ = points))[["elapsed"]]
  cat(sprintf("%d %.3f %.8f %.8f %s\n", points, seconds, as.numeric(logLik(fit)), attr(VarCorr(fit)$school, "stddev"),
              packageVersion("lme4")))
}
