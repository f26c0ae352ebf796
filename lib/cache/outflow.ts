/**
 * Bytes on their way to one client, read as it takes them. What a client has been given and has not taken
 * stays in memory, in the server's queue: some 400 KiB or two reads, whichever is more. So reads are small
 * until a client has taken more than the kernel's buffers could have, and for all clients together they
 * are bounded.
 *
 * @module
 */
import { notePassing } from "../garbage.ts";
import type { Part } from "../transforms/range.ts";

const SMALLEST = 64 * 1024;
const LARGEST = 1024 * 1024;
/** A read is at most this part of what the client has taken already: 64 KiB up to the first 16 MiB. */
const SHARE = 256;
/** What one read of every client takes together. */
const BUDGET = 8 * 2 ** 20;

/** Where the bytes are. */
export interface Outlet {
  /**
   * Some bytes from `position` on, not more than `limit`, as soon as there are any; undefined when there
   * will be none. Throws when they cannot be had: the client's connection then breaks.
   */
  read(position: number, limit: number): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Called once, when no more is read. */
  close(): void;
}

/** Options for {@linkcode outflow}. */
export interface OutflowOptions {
  /** @default all of it */
  readonly part?: Part;
  /** Called once, with the bytes delivered and whether that was all. */
  readonly onEnd: (sent: number, complete: boolean) => void;
}

let clients = 0;

/** The most to read next for a client that has taken `sent` bytes. */
function nextLimit(sent: number): number {
  const most = Math.min(LARGEST, BUDGET / clients, sent / SHARE);
  return Math.max(SMALLEST, Math.floor(most / SMALLEST) * SMALLEST);
}

/** A buffer for bytes that go to a client. */
export function passingBuffer(length: number): Uint8Array<ArrayBuffer> {
  notePassing(length);
  return new Uint8Array(length);
}

/** The bytes of `outlet`. Cancelling the stream closes the outlet and is otherwise nobody's trouble. */
export function outflow(
  outlet: Outlet,
  { part, onEnd }: OutflowOptions,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const start = part?.start ?? 0;
  const end = part ? part.end + 1 : Infinity;
  let position = start;
  let isOpen = true;
  const finish = (complete: boolean) => {
    if (!isOpen) return;
    isOpen = false;
    clients--;
    outlet.close();
    onEnd(position - start, complete);
  };
  clients++;
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const limit = Math.min(end - position, nextLimit(position - start));
        const chunk = limit > 0 ? await outlet.read(position, limit) : undefined;
        if (!isOpen) return;
        if (!chunk) {
          finish(true);
          return controller.close();
        }
        position += chunk.byteLength;
        controller.enqueue(chunk);
      } catch (error) {
        if (!isOpen) return;
        finish(false);
        controller.error(error);
      }
    },
    cancel: () => finish(false),
  }, { highWaterMark: 0 });
}
