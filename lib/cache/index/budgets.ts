/**
 * How much of the index may be facts that clients bring about by asking: tags, notes of referrers, links and
 * public marks. Content has a cap of its own.
 *
 * @module
 */

/** The kinds of facts that have a budget each. */
export type FactKind = "tags" | "referrers" | "links" | "marks";

/** The kinds of facts. */
export const FACT_KINDS: readonly FactKind[] = ["tags", "referrers", "links", "marks"];

/** What an index may take where nobody says, bytes. */
export const INDEX_SIZE: number = 256 * 2 ** 20;
/** The part of it that each kind may take. */
const KIND_SHARE = 1 / 10;
/** The part of a kind's budget that one repository may take. */
const REPOSITORY_SHARE = 1 / 4;
/** Trimming begins at this part of a budget, and ends at the next one. */
const HIGH = 0.9;
const LOW = 0.8;

/**
 * What every row counts for beside its names, bytes. A budget of bytes is therefore one of rows too: at most
 * one for each so many bytes.
 */
export const ROW_BYTES = 80;

/** Facts of one kind, of a repository or of all. */
export interface Usage {
  readonly rows: number;
  readonly bytes: number;
}

/** The budgets that follow from what the index may take. All in bytes. */
export interface Budgets {
  /** What facts of one kind may take. */
  readonly kind: number;
  /** What facts of one kind that belong to one repository may take. */
  readonly repository: number;
}

/** Returns the budgets of an index of `size` bytes. */
export function budgetsOf(size: number): Budgets {
  const kind = size * KIND_SHARE;
  return { kind, repository: kind * REPOSITORY_SHARE };
}

/** Whether facts that take `bytes` of `budget` are to be trimmed. */
export function isNearlyFull(bytes: number, budget: number): boolean {
  return bytes > budget * HIGH;
}

/** Returns to how many bytes a budget is trimmed. */
export function targetOf(budget: number): number {
  return budget * LOW;
}

/** Returns how many of `rows` that take `bytes` leave when a budget is trimmed. */
export function rowsToLeave({ rows, bytes }: Usage, budget: number): number {
  const target = targetOf(budget);
  return bytes <= target ? 0 : Math.ceil(rows * (1 - target / bytes));
}
