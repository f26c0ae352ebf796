/**
 * Suggests corrections for misspelled words.
 *
 * @module
 */

/**
 * How many letters `a` and `b` differ in: added, left out, changed, or swapped with the next (optimal string
 * alignment). More than `most` is `most + 1`.
 */
function distance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) > most) return most + 1;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        next[j] = Math.min(next[j]!, before[j - 2]! + 1);
      }
    }
    [before, row] = [row, next];
  }
  return Math.min(row[b.length]!, most + 1);
}

/**
 * The one of `words` that `text` is a slip away from, whatever the case: one letter in short words, two in those of
 * eight and more. Undefined where there is none, and of a word of fewer than three letters.
 */
export function closest<T extends string>(text: string, words: readonly T[]): T | undefined {
  if (text.length < 3) return undefined;
  const written = text.toUpperCase();
  const measured = words.map((word) => {
    const most = word.length < 8 ? 1 : 2;
    return { word, off: distance(written, word.toUpperCase(), most), most };
  });
  return measured.filter(({ off, most }) => off <= most).toSorted((a, b) => a.off - b.off)[0]?.word;
}

/** Returns the end of a message about `text`: `, did you mean serve?`, or an empty string. */
export function suggest(text: string, words: readonly string[]): string {
  const meant = closest(text, words);
  return meant === undefined ? "" : `, did you mean ${meant}?`;
}
