# Identification rates of published school counts by lme4: binomial, schools in local authorities, Laplace.
# Run in this folder: Rscript make_reference.R > reference.json (three minutes).
# Reads DfE's school census tables of 2018/19 and 2022/23 from SEND_VA_DATA; nothing of them is kept here.
suppressMessages({library(lme4); library(jsonlite)})
england <- file.path(Sys.getenv("SEND_VA_DATA", "../../../../shared/data"), "england")
census <- function(year) {
  d <- read.csv(file.path(england, year, "england_census.csv"), fileEncoding = "UTF-8-BOM", na.strings = c("NA", ""))
  d <- d[d$URN != "NAT" & d$SCHOOLTYPE %in% c("State-funded primary", "State-funded secondary"), ]
  number <- function(x) as.numeric(sub("%", "", x))
  d <- data.frame(urn = d$URN, la = d$LA, secondary = as.numeric(d$SCHOOLTYPE == "State-funded secondary"),
                  roll = number(d$NOR), support = number(d$TSENELK), ehcp = number(d$TSENELSE),
                  fsm = number(d$PNUMFSMEVER) / 10, eal = number(d$PNUMEAL) / 10, girls = number(d$PNORG) / 10)
  d[complete.cases(d) & d$roll > 0, ]
}
# At the default tolPwrss = 1e-7 the penalised least squares stop early and the log-likelihood is off by up to 0.08.
control <- glmerControl(optimizer = "bobyqa", calc.derivs = FALSE, tolPwrss = 1e-10,
                        optCtrl = list(maxfun = 1e5, rhoend = 1e-7))
describe <- function(fit) {
  list(n = nobs(fit), llf = as.numeric(logLik(fit)), fixef = as.list(fixef(fit)),
       varcorr = lapply(VarCorr(fit), function(v) list(sd = attr(v, "stddev"), cor = attr(v, "correlation"))))
}
share <- function(label, right, d) {
  d$yes <- d[[label]]
  glmer(as.formula(paste("cbind(yes, roll - yes) ~", right, "+ (1 | la) + (1 | urn)")), d, binomial, control)
}
first <- census("2018-19")
last <- census("2022-23")
found <- list(program = paste("lme4", packageVersion("lme4"), R.version.string))

secondary <- share("support", "fsm + eal + girls", first[first$secondary == 1, ])
found$secondary_support <- describe(secondary)
message("secondary done ", Sys.time())
for (label in c("support", "ehcp")) for (model in c("null", "full")) {
  right <- if (model == "null") "1" else "fsm + eal + girls + secondary"
  found[[paste("all", label, model, sep = "_")]] <- describe(share(label, right, first))
  message(label, " ", model, " ", Sys.time())
}

both <- intersect(first$urn[first$secondary == 1], last$urn[last$secondary == 1])
long <- rbind(cbind(first[match(both, first$urn), ], y2019 = 1, y2023 = 0),
              cbind(last[match(both, last$urn), ], y2019 = 0, y2023 = 1))
long$la <- rep(last$la[match(both, last$urn)], 2)
persistence <- glmer(cbind(support, roll - support) ~ 0 + y2019 + y2023 + y2019:(fsm + eal + girls) +
                       y2023:(fsm + eal + girls) + (0 + y2019 + y2023 | la) + (0 + y2019 + y2023 | urn),
                     long, binomial, control)
found$persistence_secondary_support <- describe(persistence)
message("persistence ", Sys.time())
profile <- confint(secondary, parm = "theta_", method = "profile", oldNames = FALSE, quiet = TRUE)
found$secondary_support$profile <- list(urn = profile[1, ], la = profile[2, ])
cat(toJSON(found, digits = NA, auto_unbox = TRUE, pretty = TRUE), "\n")
