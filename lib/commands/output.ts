/**
 * Where a command's words go.
 *
 * @module
 */

/** A terminal that lines can be drawn on again and again. */
export interface Terminal {
  /** Characters in a line. */
  readonly columns: number;
  /** Writes at once, control characters included. */
  write(text: string): void;
}

/** Where a command prints to. */
export interface Output {
  /** A line of what was asked for. */
  print(line: string): void;
  /** A line that says why something could not be done. */
  printError(line: string): void;
  /** For progress; absent where nobody watches. */
  readonly terminal?: Terminal;
}
