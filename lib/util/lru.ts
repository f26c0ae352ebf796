/**
 * Maps bounded in bytes. A peer may choose how long keys and values are, so a number of entries says nothing
 * about memory.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { LRUCache } from "lru-cache";

/** What an entry takes beside its key and its value, bytes: its places in the map and in the order of use. */
const ENTRY = 200;
/** What a string takes beside its characters, bytes. */
const STRING = 24;
/** An entry takes at most this part of the whole. */
const LARGEST = 1 / 8;

/** Whether V8 keeps `text` with one byte per character. */
function isOneByte(text: string): boolean {
  return !/[^\0-\xff]/.test(text);
}

/** Returns the bytes that `text` takes in memory. */
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
  /** What all entries may take together, keys included. */
  readonly bytes: number;
  /** Returns the bytes that a value takes. @default {8 for each} */
  readonly sizeOf?: (value: Value) => number;
  /** Called with each value that leaves, however. */
  readonly onRemoved?: (value: Value) => void;
}

interface Box<Value> {
  value: Value;
  readonly bytes: number;
  /** The round in which it was used last. */
  round: number;
}

/** A map of a number of bytes; the entry used longest ago leaves first. */
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

  /** How many entries there are. */
  get size(): number {
    return this.#boxes.size;
  }

  /** What they take, bytes. */
  get bytes(): number {
    return this.#boxes.calculatedSize;
  }

  /** Returns the value of `key`, which counts as a use. */
  get(key: string): Value | undefined {
    const box = this.#boxes.get(key);
    if (!box) return undefined;
    box.round = this.#round;
    return box.value;
  }

  /** Returns whether there is one, which does not count as a use. */
  has(key: string): boolean {
    return this.#boxes.has(key);
  }

  /** Sets it. Returns whether it is kept: what takes an eighth of the whole is not, and nor is what it replaces. */
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

  /** Removes it. Returns whether it was there. */
  delete(key: string): boolean {
    return this.#boxes.delete(key);
  }

  /** Removes all. */
  clear(): void {
    this.#boxes.clear();
  }

  /** Removes what has not been used since this was called the last time. */
  dropUnused(): void {
    for (const key of this.#boxes.rkeys()) {
      if (this.#boxes.peek(key)?.round === this.#round) break; // the rest was used later
      this.#boxes.delete(key);
    }
    this.#round++;
  }

  /** Every key, the one used last first. */
  *keys(): Generator<string> {
    yield* this.#boxes.keys();
  }

  /** Every key with its value, the one used last first. */
  *entries(): Generator<[string, Value]> {
    for (const [key, { value }] of this.#boxes.entries()) yield [key, value];
  }
}
