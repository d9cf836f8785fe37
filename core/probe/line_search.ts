/**
 * Moré and Thuente's line search (1994) with the constants of L-BFGS-B, so that a fit stops where scikit-learn's stops.
 * Refuses directions that do not descend.
 */

/** Value and slope along the line at a step. */
interface Point {
  step: number;
  value: number;
  slope: number;
}

const DECREASE = 1e-3, CURVATURE = 0.9, WIDTH = 0.1, MOST_EVALUATIONS = 50, LARGEST_STEP = 1e10;

/**
 * A step that meets the strong Wolfe conditions (sufficient decrease 1e-3, curvature 0.9), from a first guess.
 * `at` evaluates value and slope; its last call was at the returned step. @returns undefined when 50 evaluations find none
 */
export function lineSearch(
  start: Omit<Point, "step">,
  first: number,
  at: (step: number) => Omit<Point, "step">,
): number | undefined {
  if (!(start.slope < 0)) {
    throw new Error(`Cannot search a line whose slope is ${start.slope}: it does not descend`);
  }
  const test = DECREASE * start.slope;
  let best: Point = { step: 0, ...start }, other: Point = { step: 0, ...start };
  let step = first, bracketed = false, early = true;
  let low = 0, high = step + 4 * step, width = LARGEST_STEP, widthBefore = 2 * width;
  for (let tries = 0; tries < MOST_EVALUATIONS; tries++) {
    const { value, slope } = at(step);
    const wanted = start.value + step * test;
    if (early && value <= wanted && slope >= 0) early = false;
    if (value <= wanted && Math.abs(slope) <= -CURVATURE * start.slope) return step;
    if (bracketed && (step <= low || step >= high || high - low <= WIDTH * high)) return step;
    const now = { step, value, slope };
    if (early && value <= best.value && value > wanted) {
      // Until the decrease is sufficient the search looks at the function less its test line.
      const less = (p: Point) => ({ step: p.step, value: p.value - p.step * test, slope: p.slope - test });
      const more = (p: Point) => ({ step: p.step, value: p.value + p.step * test, slope: p.slope + test });
      const next = nextStep(less(best), less(other), less(now), bracketed, low, high);
      [best, other, step, bracketed] = [more(next.best), more(next.other), next.step, next.bracketed];
    } else {
      const next = nextStep(best, other, now, bracketed, low, high);
      [best, other, step, bracketed] = [next.best, next.other, next.step, next.bracketed];
    }
    if (bracketed) {
      if (Math.abs(other.step - best.step) >= 0.66 * widthBefore) {
        step = best.step + (other.step - best.step) / 2;
      }
      [widthBefore, width] = [width, Math.abs(other.step - best.step)];
      [low, high] = [Math.min(best.step, other.step), Math.max(best.step, other.step)];
    } else {
      [low, high] = [step + 1.1 * (step - best.step), step + 4 * (step - best.step)];
    }
    step = Math.min(LARGEST_STEP, Math.max(0, step));
    if (bracketed && (step <= low || step >= high || high - low <= WIDTH * high)) step = best.step;
  }
  return undefined;
}

/** The next trial step and the interval that holds a minimum, by cubic and secant steps (their section 4). */
function nextStep(best: Point, other: Point, now: Point, bracketed: boolean, low: number, high: number) {
  const opposed = now.slope * Math.sign(best.slope) < 0;
  const theta = 3 * (best.value - now.value) / (now.step - best.step) + best.slope + now.slope;
  const cubic = (from: Point, to: Point, th: number, sign: number, floor = false) => {
    const s = Math.max(Math.abs(th), Math.abs(from.slope), Math.abs(to.slope));
    const inside = (th / s) ** 2 - (from.slope / s) * (to.slope / s);
    return sign * s * Math.sqrt(floor ? Math.max(0, inside) : inside);
  };
  let step: number;
  if (now.value > best.value) {
    const gamma = cubic(best, now, theta, now.step < best.step ? -1 : 1);
    const r = (gamma - best.slope + theta) / (2 * gamma - best.slope + now.slope);
    const byCubic = best.step + r * (now.step - best.step);
    const fall = (best.value - now.value) / (now.step - best.step) + best.slope;
    const byQuadratic = best.step + best.slope / fall / 2 * (now.step - best.step);
    step = Math.abs(byCubic - best.step) < Math.abs(byQuadratic - best.step)
      ? byCubic
      : byCubic + (byQuadratic - byCubic) / 2;
    bracketed = true;
  } else if (opposed) {
    const gamma = cubic(best, now, theta, now.step > best.step ? -1 : 1);
    const r = (gamma - now.slope + theta) / (2 * gamma - now.slope + best.slope);
    const byCubic = now.step + r * (best.step - now.step);
    const bySecant = now.step + now.slope / (now.slope - best.slope) * (best.step - now.step);
    step = Math.abs(byCubic - now.step) > Math.abs(bySecant - now.step) ? byCubic : bySecant;
    bracketed = true;
  } else if (Math.abs(now.slope) < Math.abs(best.slope)) {
    const gamma = cubic(best, now, theta, now.step > best.step ? -1 : 1, true);
    const r = (gamma - now.slope + theta) / (gamma + (best.slope - now.slope) + gamma);
    const byCubic = r < 0 && gamma !== 0
      ? now.step + r * (best.step - now.step)
      : now.step > best.step
      ? high
      : low;
    const bySecant = now.step + now.slope / (now.slope - best.slope) * (best.step - now.step);
    const cubicIsNearer = Math.abs(byCubic - now.step) < Math.abs(bySecant - now.step);
    if (bracketed) {
      step = cubicIsNearer ? byCubic : bySecant;
      const bound = now.step + 0.66 * (other.step - now.step);
      step = now.step > best.step ? Math.min(bound, step) : Math.max(bound, step);
    } else {
      step = Math.max(low, Math.min(high, cubicIsNearer ? bySecant : byCubic));
    }
  } else if (bracketed) {
    const th = 3 * (now.value - other.value) / (other.step - now.step) + other.slope + now.slope;
    const gamma = cubic(other, now, th, now.step > other.step ? -1 : 1);
    const r = (gamma - now.slope + th) / (2 * gamma - now.slope + other.slope);
    step = now.step + r * (other.step - now.step);
  } else {
    step = now.step > best.step ? high : low;
  }
  if (now.value > best.value) other = now;
  else {
    if (opposed) other = best;
    best = now;
  }
  return { best, other, step, bracketed };
}
