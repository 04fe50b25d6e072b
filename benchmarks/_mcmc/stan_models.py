"""The posteriors in Stan: by name, the program; and the data as it wants them."""

from typing import Any

import numpy as np

PROGRAMS = {
    "eight_schools": """
data { int N; vector[N] y; vector[N] sigma; }
parameters { real mu; real<lower=0> tau; vector[N] theta_trans; }
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta_trans ~ std_normal();
  y ~ normal(mu + tau * theta_trans, sigma);
}
""",
    "kidiq": """
data { int N; vector[N] kid_score; vector[N] mom_hs; vector[N] mom_iq; }
transformed data { vector[N] both = mom_hs .* mom_iq; }
parameters { vector[4] beta; real<lower=0> sigma; }
model {
  sigma ~ cauchy(0, 2.5);
  kid_score ~ normal(beta[1] + beta[2] * mom_hs + beta[3] * mom_iq + beta[4] * both, sigma);
}
""",
    "low_dim_gauss_mix": """
data { int N; vector[N] y; }
parameters { ordered[2] mu; vector<lower=0>[2] sigma; real<lower=0, upper=1> theta; }
model {
  mu ~ normal(0, 2);
  sigma ~ normal(0, 2);
  theta ~ beta(5, 5);
  for (n in 1:N)
    target += log_mix(theta, normal_lpdf(y[n] | mu[1], sigma[1]), normal_lpdf(y[n] | mu[2], sigma[2]));
}
""",
    "arK": """
data { int N; vector[N] y; }
transformed data {
  matrix[N - 5, 5] lags;
  for (k in 1:5) lags[, k] = y[(6 - k):(N - k)];
}
parameters { real alpha; vector[5] beta; real<lower=0> sigma; }
model {
  alpha ~ normal(0, 10);
  beta ~ normal(0, 10);
  sigma ~ cauchy(0, 2.5);
  y[6:N] ~ normal_id_glm(lags, alpha, beta, sigma);
}
""",
    "gp_regr": """
data { int N; array[N] real x; vector[N] y; }
parameters { real<lower=0> rho; real<lower=0> alpha; real<lower=0> sigma; }
model {
  matrix[N, N] cov = add_diag(gp_exp_quad_cov(x, alpha, rho), sigma);
  rho ~ gamma(25, 4);
  alpha ~ normal(0, 2);
  sigma ~ normal(0, 1);
  y ~ multi_normal_cholesky(rep_vector(0, N), cholesky_decompose(cov));
}
""",
    "mixture": """
data {
  int N; matrix[N, 2] x; vector[2] center; vector[2] sd; vector[2] shape; vector[2] rate;
  real below; real concentration;
}
parameters {
  simplex[2] weights; ordered[2] first; vector[2] second;
  matrix<lower=0>[2, 2] precision; matrix[2, 1] off_diagonal;
}
model {
  matrix[N, 2] score;
  weights ~ dirichlet(rep_vector(concentration, 2));
  first ~ normal(center[1], sd[1]);
  second ~ normal(center[2], sd[2]);
  to_vector(off_diagonal) ~ normal(0, below);
  for (k in 1:2) {
    vector[2] root = sqrt(precision[k]');
    vector[N] gap = x[, 1] - first[k];
    precision[k]' ~ gamma(shape, rate);
    score[, k] = log(weights[k]) + sum(log(root)) - 0.5 * (square(root[1] * gap)
                 + square(off_diagonal[k, 1] * gap + root[2] * (x[, 2] - second[k])));
  }
  for (n in 1:N) target += log_sum_exp(score[n, 1], score[n, 2]);
}
""",
    "poisson_glm": """
data { int N; int D; matrix[N, D] X; array[N] int y; }
parameters { real intercept; vector[D] beta; }
model {
  intercept ~ std_normal();
  beta ~ std_normal();
  y ~ poisson_log_glm(X, intercept, beta);
}
""",
    "bnn": """
data { int N; int units; vector[N] x; vector[N] y; }
parameters {
  vector[units] slope; vector[units] shift; vector[units] out; real level; real<lower=0> sigma;
}
model {
  slope ~ normal(0, 2);
  shift ~ normal(0, 2);
  out ~ normal(0, inv_sqrt(units));
  level ~ std_normal();
  sigma ~ std_normal();
  y ~ normal(tanh(x * slope' + rep_matrix(shift', N)) * out + level, sigma);
}
""",
}


def data_of(name: str, data: Any) -> dict[str, Any]:
    """Return the data as lists, with the sizes that the program declares; what it does not declare it ignores."""
    lists = {key: np.asarray(value).tolist() for key, value in data.items()}
    rows = next(value for key, value in data.items() if key in ("y", "x", "kid_score"))
    sizes = {"N": len(rows)}
    if name == "poisson_glm":
        sizes["D"] = data["X"].shape[1]
        lists["y"] = data["y"].astype(int).tolist()
    return lists | sizes
