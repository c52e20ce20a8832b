# The peer's side of benchmarks/crossed_against_lme4.py: reads records.csv in the working directory, times lmer's call.
suppressMessages(library(lme4))
d <- read.csv("records.csv")
form <- y ~ prior + prior2 + need + male + fsm + eal + month + idaci + e1 + e2 + e3 + (1 | feeder) + (1 | school)
invisible(gc())
seconds <- system.time(fit <- lmer(form, d, control = lmerControl(calc.derivs = FALSE)))[["elapsed"]]
cat(sprintf("%.4f %.8f %s\n", seconds, as.numeric(logLik(fit)), packageVersion("lme4")))
