/**
 * What a command prints, kept for a test.
 *
 * @module
 */
import type { Output } from "../../lib/commands/output.ts";

/** Lines so far. */
export interface KeptOutput extends Output {
  readonly lines: string[];
  readonly errors: string[];
  /** Everything written to the terminal. */
  readonly screen: string[];
}

/** An output whose lines are kept; with `columns` somebody watches. */
export function keepOutput({ columns }: { columns?: number } = {}): KeptOutput {
  const [lines, errors, screen]: string[][] = [[], [], []];
  return {
    lines: lines!,
    errors: errors!,
    screen: screen!,
    print: (line) => void lines!.push(line),
    printError: (line) => void errors!.push(line),
    terminal: columns === undefined
      ? undefined
      : { columns, write: (text) => void screen!.push(text) },
  };
}
