/**
 * A doubly linked list with constant-time operations. `Set` is ordered too, but has no access to its last
 * entry, and finding the first slows down with the number of deleted entries.
 *
 * @module
 */

/** An entry of at most one list. */
export class ListNode<T> {
  readonly value: T;
  /** @internal */
  list: LinkedList<T> | undefined;
  /** @internal */
  before: ListNode<T> | undefined;
  /** @internal */
  after: ListNode<T> | undefined;

  constructor(value: T) {
    this.value = value;
  }
}

/** A doubly linked list. */
export class LinkedList<T> {
  #first: ListNode<T> | undefined;
  #last: ListNode<T> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get first(): ListNode<T> | undefined {
    return this.#first;
  }

  get last(): ListNode<T> | undefined {
    return this.#last;
  }

  /** Appends `node`, which must not be in a list. */
  push(node: ListNode<T>): void {
    node.list = this;
    node.before = this.#last;
    if (this.#last) this.#last.after = node;
    else this.#first = node;
    this.#last = node;
    this.#size++;
  }

  /** Removes `node`. Returns whether it was in this list. */
  remove(node: ListNode<T>): boolean {
    if (node.list !== this) return false;
    const { before, after } = node;
    if (before) before.after = after;
    else this.#first = after;
    if (after) after.before = before;
    else this.#last = before;
    node.list = node.before = node.after = undefined;
    this.#size--;
    return true;
  }
}
