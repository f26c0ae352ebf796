/**
 * A doubly linked list: every operation takes the same time, however long it is. `Set` keeps order too, but
 * has no last entry, and finding its first one takes longer the more have been deleted before it.
 *
 * @module
 */

/** An entry; it is in one list at most. */
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

/** The list. */
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

  /** Appends `node`, which is in no list. */
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
