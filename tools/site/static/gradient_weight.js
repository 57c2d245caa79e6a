// The gradient weight w of every objective that is a function of one token alone, for the figure of docs/gradient-weight.md.
// The formulas are those of src/drpo/objectives; tests/docs/test_gradient_weight_page.py compares them with the code.
"use strict";

const GradientWeight = (() => {
  // What the formulas read of a token: probabilities mu and pi in (0, 1), and its advantage, which is not 0.
  // The code saturates log-ratios at 40 nats, which no pair of probabilities of the figure reaches.
  function token(mu, pi, advantage) {
    const sign = Math.sign(advantage);
    const logRatio = Math.log(pi) - Math.log(mu);
    const direction = Math.sign(sign * logRatio); // +1: diverging, -1: converging
    return { mu, pi, advantage, sign, logRatio, ratio: Math.exp(logRatio), shift: Math.abs(pi - mu), direction };
  }

  function binaryKL({ mu, pi }) {
    const rest = mu < 1 ? (1 - mu) * (Math.log1p(-mu) - Math.log1p(-pi)) : 0;
    return Math.max(0, mu * (Math.log(mu) - Math.log(pi)) + rest);
  }

  const sigmoid = x => 1 / (1 + Math.exp(-x));
  const capped = (t, cap) => (cap === null ? 1 : Math.min(1, cap / t.ratio));
  const outside = (t, p) => t.direction > 0 && (t.ratio < 1 - p.ratio_low || t.ratio > 1 + p.ratio_high);
  const clip = (t, p) => (outside(t, p) || (p.dual_clip !== null && t.sign < 0 && t.ratio > p.dual_clip) ? 0 : 1);
  const mask = (t, p, beyond) => (t.direction > 0 && beyond ? 0 : capped(t, p.ratio_cap));
  // What divides a penalty that is not scaled by the advantage.
  const size = (t, p) => (p.advantage_weighted ? 1 : Math.abs(t.advantage));

  // dest/dlog r of the KL estimators.
  const SLOPES = {
    k1: () => -1,
    k2: t => t.logRatio,
    k3: t => Math.expm1(t.logRatio),
    reverse: t => t.ratio * t.logRatio,
  };

  // Registry name -> parameters with their defaults, and w of a token t under parameters p.
  const OBJECTIVES = {
    drpo: {
      parameters: { delta: 0.15, deadzone: 0, advantage_weighted: true },
      weight: (t, p) => 1 - (t.direction * Math.max(0, t.shift - p.deadzone)) / ((p.delta - p.deadzone) * size(t, p)),
    },
    mask_drpo: {
      parameters: { delta: 0.15, boundary: 0.15, diverging_only: false },
      weight: (t, p) =>
        t.shift > p.boundary && (t.direction > 0 || !p.diverging_only) ? 1 - (t.direction * t.shift) / p.delta : 1,
    },
    dppo_tv: {
      parameters: { delta: 0.15, ratio_cap: null },
      weight: (t, p) => mask(t, p, t.shift > p.delta),
    },
    dppo_kl: {
      parameters: { kl_max: 0.05, ratio_cap: null },
      weight: (t, p) => mask(t, p, binaryKL(t) > p.kl_max),
    },
    ipo: {
      parameters: { delta: 0.3, ratio_cap: 10000 },
      weight: (t, p) => (t.shift > p.delta ? 0 : capped(t, p.ratio_cap)),
    },
    ppo: { parameters: { ratio_low: 0.2, ratio_high: 0.2, dual_clip: null }, weight: clip },
    grpo: { parameters: { ratio_low: 0.2, ratio_high: 0.28, dual_clip: null }, weight: clip },
    truly_ppo: {
      parameters: { ratio_low: 0.2, ratio_high: 0.2, rollback: 0.3 },
      weight: (t, p) => (outside(t, p) ? -p.rollback : 1),
    },
    spo: { parameters: { epsilon: 0.2 }, weight: (t, p) => 1 - (t.sign * Math.expm1(t.logRatio)) / p.epsilon },
    sapo: {
      parameters: { tau_positive: 1, tau_negative: 1.05 },
      weight: (t, p) => {
        const gate = sigmoid((t.sign > 0 ? p.tau_positive : p.tau_negative) * (t.ratio - 1));
        return 4 * gate * (1 - gate);
      },
    },
    cispo: { parameters: { ratio_cap: 5 }, weight: (t, p) => capped(t, p.ratio_cap) },
    aipo: { parameters: { ratio_cap: 2 }, weight: (t, p) => capped(t, p.ratio_cap) },
    topr: { parameters: {}, weight: t => (t.sign < 0 ? capped(t, 1) : 1 / t.ratio) },
    icepop: { parameters: { low: 0.2, high: 5 }, weight: (t, p) => (t.ratio < p.low || t.ratio > p.high ? 0 : 1) },
    rollout_is: {
      parameters: { ratio_low: 0.2, ratio_high: 0.2 },
      weight: (t, p) => (t.ratio <= 1 - p.ratio_low || t.ratio >= 1 + p.ratio_high ? 0 : 1),
    },
    rec_ring: {
      parameters: { ratio_low: 0.2, ratio_high: 0.2, outer_low: 0.6, outer_high: 2, importance_sampling: false },
      weight: (t, p) => {
        const inner = t.ratio >= 1 - p.ratio_low && t.ratio <= 1 + p.ratio_high;
        const outer = t.sign > 0 ? t.ratio <= 1 - p.outer_low : t.ratio >= 1 + p.outer_high;
        return inner || outer ? (p.importance_sampling ? 1 : 1 / t.ratio) : 0;
      },
    },
    kimi: {
      parameters: { log_ratio_max: 0.5, coefficient: 0.05 },
      weight: (t, p) =>
        (Math.abs(t.logRatio) > p.log_ratio_max ? 0 : 1) - (2 * p.coefficient * t.logRatio) / (t.ratio * t.advantage),
    },
    kl_penalty: {
      parameters: { estimator: "k3", coefficient: 0.1, advantage_weighted: true },
      weight: (t, p) => 1 - (p.coefficient * SLOPES[p.estimator](t)) / (t.ratio * t.sign * size(t, p)),
    },
    tv_penalty: {
      parameters: { coefficient: 0.1, advantage_weighted: true },
      weight: (t, p) => 1 - (p.coefficient * Math.sign(t.logRatio) * t.sign) / size(t, p),
    },
    mdpo: { parameters: { step_size: 1 }, weight: (t, p) => 1 - t.logRatio / (p.step_size * t.advantage) },
    dro: { parameters: { beta: 0.05 }, weight: (t, p) => (1 - (p.beta * t.logRatio) / t.advantage) / t.ratio },
    surrogate: { parameters: {}, weight: () => 1 },
  };

  // w of the objective `name`, with `parameters` instead of its defaults.
  function weight(name, mu, pi, advantage, parameters = {}) {
    const { parameters: defaults, weight: formula } = OBJECTIVES[name];
    return formula(token(mu, pi, advantage), { ...defaults, ...parameters }) + 0; // + 0: no -0
  }

  return { OBJECTIVES, token, weight };
})();

if (typeof module !== "undefined") module.exports = GradientWeight;
