/**
 * LRU maps bounded in bytes. Peers choose the length of keys and values, so a maximum number of entries
 * would not bound memory.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { LRUCache } from "lru-cache";

/** Estimated overhead of an entry, in bytes. */
const ENTRY = 200;
/** Estimated overhead of a string, in bytes. */
const STRING = 24;
/** Maximum share of the map for one entry. */
const LARGEST = 1 / 8;

/** Whether V8 stores `text` with one byte per character. */
function isOneByte(text: string): boolean {
  return !/[^\0-\xff]/.test(text);
}

/** Returns the estimated size of `text` in memory, in bytes. */
export function stringBytes(text: string): number {
  return STRING + (isOneByte(text) ? 1 : 2) * text.length;
}

/**
 * Returns `text` in memory of its own. V8 makes a slice of a string by pointing into the whole: a host name taken
 * from a request's head keeps all of the head alive. Whatever is kept longer than its request has to pass here.
 */
export function detached(text: string): string {
  const encoding = isOneByte(text) ? "latin1" : "utf16le";
  return Buffer.from(text, encoding).toString(encoding);
}

/** Options for {@linkcode ByteLru}. */
export interface ByteLruOptions<Value> {
  /** Maximum total size of all entries in bytes, including keys. */
  readonly bytes: number;
  /** Returns the size of a value in bytes. @default {8 for each} */
  readonly sizeOf?: (value: Value) => number;
  /** Called with each value that leaves the map. */
  readonly onRemoved?: (value: Value) => void;
}

interface Box<Value> {
  value: Value;
  readonly bytes: number;
  /** The round in which it was used last. */
  round: number;
}

/** A map with a maximum size in bytes. It evicts the least recently used entry first. */
export class ByteLru<Value extends NonNullable<unknown>> {
  readonly #sizeOf: (value: Value) => number;
  readonly #onRemoved: (value: Value) => void;
  readonly #largest: number;
  readonly #boxes: LRUCache<string, Box<Value>>;
  #round = 0;

  constructor({ bytes, sizeOf = () => 8, onRemoved = () => {} }: ByteLruOptions<Value>) {
    this.#sizeOf = sizeOf;
    this.#onRemoved = onRemoved;
    this.#largest = bytes * LARGEST;
    // Not `max`: that makes room for all entries at once.
    this.#boxes = new LRUCache<string, Box<Value>>({
      maxSize: bytes,
      sizeCalculation: (box) => box.bytes,
      dispose: ({ value }) => onRemoved(value),
    });
  }

  /** Number of entries. */
  get size(): number {
    return this.#boxes.size;
  }

  /** Total size of the entries, in bytes. */
  get bytes(): number {
    return this.#boxes.calculatedSize;
  }

  /** Returns the value of `key`, and marks it as used. */
  get(key: string): Value | undefined {
    const box = this.#boxes.get(key);
    if (!box) return undefined;
    box.round = this.#round;
    return box.value;
  }

  /** Returns whether `key` exists, without marking it as used. */
  has(key: string): boolean {
    return this.#boxes.has(key);
  }

  /**
   * Sets a value. Returns whether it is stored: entries above an eighth of the maximum are not, and neither
   * is the entry they replace.
   */
  set(key: string, value: Value): boolean {
    const bytes = ENTRY + stringBytes(key) + this.#sizeOf(value);
    const box = this.#boxes.get(key);
    if (box && box.bytes === bytes) {
      const old = box.value;
      box.value = value;
      box.round = this.#round;
      this.#onRemoved(old);
      return true;
    }
    if (box) this.#boxes.delete(key);
    if (bytes > this.#largest) return false;
    this.#boxes.set(detached(key), { value, bytes, round: this.#round });
    return true;
  }

  /** Removes `key`. Returns whether it existed. */
  delete(key: string): boolean {
    return this.#boxes.delete(key);
  }

  /** Removes all entries. */
  clear(): void {
    this.#boxes.clear();
  }

  /** Removes entries that have not been used since the previous call. */
  dropUnused(): void {
    for (const key of this.#boxes.rkeys()) {
      if (this.#boxes.peek(key)?.round === this.#round) break; // later entries were used more recently
      this.#boxes.delete(key);
    }
    this.#round++;
  }

  /** Yields every key, most recently used first. */
  *keys(): Generator<string> {
    yield* this.#boxes.keys();
  }

  /** Yields every key and value, most recently used first. */
  *entries(): Generator<[string, Value]> {
    for (const [key, { value }] of this.#boxes.entries()) yield [key, value];
  }
}
