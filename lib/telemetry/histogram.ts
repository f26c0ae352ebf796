/**
 * Histograms by label values. An observation costs one addition.
 *
 * @module
 */

/** The observations of one set of label values. */
export interface Distribution {
  /** Counts per bucket, not cumulated. The last one counts values above all bounds. */
  readonly counts: readonly number[];
  readonly sum: number;
  readonly count: number;
}

interface Cell {
  counts: number[];
  sum: number;
  count: number;
}

/** A family of histograms. */
export class Histogram {
  /** Upper bounds of the buckets, ascending. */
  readonly bounds: readonly number[];
  readonly #cells = new Map<string, Cell>();

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
  }

  /** Records `value` for these label values. */
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
