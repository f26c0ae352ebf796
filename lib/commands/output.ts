/**
 * Where a command prints.
 *
 * @module
 */

/** A terminal on which lines can be redrawn. */
export interface Terminal {
  /** The width in characters. */
  readonly columns: number;
  /** Writes `text` immediately, including control characters. */
  write(text: string): void;
}

/** The destinations of a command's output. */
export interface Output {
  /** Prints a line of the result to standard output. */
  print(line: string): void;
  /** Prints a line of an error to standard error. */
  printError(line: string): void;
  /** The terminal for progress. Undefined if standard error is not a terminal. */
  readonly terminal?: Terminal;
}
