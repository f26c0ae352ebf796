/**
 * Distributions by label values, cheap enough for every request: an addition per observation.
 *
 * @module
 */

/** Observations of one set of label values. */
export interface Distribution {
  /** By bucket, and at the end what is larger than the last bound; not cumulated. */
  readonly counts: readonly number[];
  readonly sum: number;
  readonly count: number;
}

interface Cell {
  counts: number[];
  sum: number;
  count: number;
}

/** A family of distributions. */
export class Histogram {
  /** Upper bounds of the buckets, rising. */
  readonly bounds: readonly number[];
  readonly #cells = new Map<string, Cell>();

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
  }

  /** Notes `value` for these label values. */
  observe(labels: string, value: number): void {
    let cell = this.#cells.get(labels);
    if (!cell) {
      cell = { counts: new Array(this.bounds.length + 1).fill(0), sum: 0, count: 0 };
      this.#cells.set(labels, cell);
    }
    let bucket = 0;
    while (bucket < this.bounds.length && value > this.bounds[bucket]!) bucket++;
    cell.counts[bucket]!++;
    cell.sum += value;
    cell.count++;
  }

  entries(): IterableIterator<[string, Distribution]> {
    return this.#cells.entries();
  }
}
