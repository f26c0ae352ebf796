/**
 * What several rounds came to: medians, spreads, ratios, and whether a target is met.
 *
 * @module
 */

/** A figure over several rounds. */
export interface Summary {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** The median, lowest and highest of `values`. Throws a `RangeError` for none. */
export function summary(values: readonly number[]): Summary {
  if (values.length === 0) throw new RangeError("Nothing was measured");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, low: sorted[0]!, high: sorted.at(-1)! };
}

/**
 * `ours` by `theirs`, round by round: what happens on the machine in a round happens to both. Throws a
 * `RangeError` where they are of different rounds.
 */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  if (ours.length !== theirs.length) throw new RangeError("Different numbers of rounds");
  return ours.map((value, round) => value / theirs[round]!);
}

/** A figure that has a target. */
export interface Check {
  /** What is compared with what, e.g. `by nginx static`. */
  readonly what: string;
  /** `≥ 0.8` */
  readonly target: string;
  readonly figure: Summary;
  readonly isMet: boolean;
}

/** A target: at least, or at most, so much. */
export type Target = { readonly atLeast: number } | { readonly atMost: number };

/** What `values` come to, held against `target` by their median; `unit` is written behind the number. */
export function check(
  what: string,
  { values, target, unit = "" }: {
    readonly values: readonly number[];
    readonly target: Target;
    readonly unit?: string;
  },
): Check {
  const figure = summary(values);
  const isMet = "atLeast" in target
    ? figure.median >= target.atLeast
    : figure.median <= target.atMost;
  const text = "atLeast" in target ? `≥ ${target.atLeast}` : `≤ ${target.atMost}`;
  return { what, target: text + unit, figure, isMet };
}

/** A number with three significant digits. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}
