import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ChunkBuffer } from "../../../lib/cache/content/chunk_buffer.ts";
import { concat } from "../../../lib/upstream/download/body.ts";
import { cut } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

/** Receives `bytes` in memory that was taken, as a body does that is read into it. */
function receive(pieces: ChunkBuffer, bytes: Uint8Array): void {
  const memory = pieces.take().transfer();
  new Uint8Array(memory).set(bytes);
  pieces.giveBack(memory);
  pieces.push(new Uint8Array(memory, 0, bytes.byteLength));
}

/** Writes what is next, which becomes what was written last. */
function write(pieces: ChunkBuffer, at = 0): Uint8Array<ArrayBuffer> {
  const piece = pieces.next();
  assert(piece);
  pieces.written(piece, at);
  return piece;
}

Deno.test("what comes in whatever pieces, in memory taken here or not, is written in order", () => {
  const bytes = randomBytes(1000, 1);
  const chunks = fc.uniqueArray(fc.integer({ min: 1, max: 999 }), { maxLength: 20 });
  fc.assert(fc.property(
    chunks,
    fc.infiniteStream(fc.boolean()),
    fc.integer({ min: 1, max: 300 }),
    (cuts, choices, size) => {
      const pieces = new ChunkBuffer(size);
      const written: Uint8Array<ArrayBuffer>[] = [];
      let length = 0;
      const writeOne = () => {
        const piece = pieces.next();
        if (!piece) return false;
        assert(piece.byteLength <= size);
        written.push(piece.slice());
        pieces.written(piece, length);
        length += piece.byteLength;
        return true;
      };
      for (const chunk of cut(bytes, cuts)) {
        const isIn = choices.next().value;
        if (isIn && chunk.byteLength <= size) receive(pieces, chunk);
        else pieces.push(chunk);
        if (choices.next().value) writeOne();
      }
      while (writeOne());
      assertEquals(concat(written, length), bytes);
    },
  ));
});

Deno.test("what is received while nothing waits is written from where it was received", () => {
  const pieces = new ChunkBuffer(100);
  const memory = pieces.take();
  pieces.giveBack(memory);
  pieces.push(new Uint8Array(memory, 0, 80));
  assert(pieces.next()!.buffer === memory);
});

Deno.test("what is small is put together as long as it waits", () => {
  const pieces = new ChunkBuffer(100);
  for (const byte of [1, 2, 3]) receive(pieces, new Uint8Array([byte]));
  assertEquals([...pieces.next()!], [1, 2, 3]);
  assertEquals(pieces.next(), undefined);
});

Deno.test("it is full when as much waits as one piece holds", () => {
  const pieces = new ChunkBuffer(100);
  receive(pieces, new Uint8Array(60));
  assertEquals(pieces.isFull, false);
  receive(pieces, new Uint8Array(40));
  assertEquals(pieces.isFull, true);
  pieces.next();
  assertEquals(pieces.isFull, false);
});

Deno.test("memory of others is neither kept nor written to", () => {
  const pieces = new ChunkBuffer(4);
  const theirs = new Uint8Array([1, 2, 3, 4]);
  pieces.push(theirs);
  write(pieces);
  for (let i = 0; i < 5; i++) {
    receive(pieces, new Uint8Array([9, 9, 9, 9]));
    write(pieces, 4 + 4 * i);
  }
  assertEquals([...theirs], [1, 2, 3, 4]);
});

Deno.test("what was written last is lent, from any place in it, and nothing else is", () => {
  const pieces = new ChunkBuffer(4);
  receive(pieces, new Uint8Array([1, 2, 3, 4]));
  assertEquals(pieces.lend(0, 4), undefined);
  write(pieces);
  assertEquals([...pieces.lend(0, 9)!.bytes], [1, 2, 3, 4]);
  assertEquals([...pieces.lend(1, 2)!.bytes], [2, 3]);
  assertEquals(pieces.lend(4, 1), undefined);
  receive(pieces, new Uint8Array([5, 6, 7, 8]));
  write(pieces, 4);
  assertEquals(pieces.lend(3, 1), undefined);
  assertEquals([...pieces.lend(7, 9)!.bytes], [8]);
});

Deno.test("what is lent stays as it is until all have let it go, and its memory is used again then", () => {
  const pieces = new ChunkBuffer(1);
  receive(pieces, new Uint8Array([1]));
  const { buffer } = write(pieces);
  const [one, another] = [pieces.lend(0, 1)!, pieces.lend(0, 1)!];
  one.letGo(true);
  for (let i = 1; i < 9; i++) {
    receive(pieces, new Uint8Array([9]));
    assert(write(pieces, i).buffer !== buffer);
  }
  assertEquals([...another.bytes], [1]);
  another.letGo(true);
  const taken = Array.from({ length: 4 }, () => pieces.take());
  assert(taken.includes(buffer));
});

Deno.test("memory that somebody may still send from is never used again", () => {
  const pieces = new ChunkBuffer(1);
  receive(pieces, new Uint8Array([1]));
  write(pieces);
  const { bytes, letGo } = pieces.lend(0, 1)!;
  letGo(false);
  for (let i = 1; i < 9; i++) {
    receive(pieces, new Uint8Array([9]));
    write(pieces, i);
  }
  assertEquals([...bytes], [1]);
});

Deno.test("the slow do not keep more and more of it: nothing is lent while four pieces are still out", () => {
  const pieces = new ChunkBuffer(1);
  const loans = Array.from({ length: 5 }, (_, i) => {
    receive(pieces, new Uint8Array([i]));
    write(pieces, i);
    return pieces.lend(i, 1);
  });
  assertEquals(loans.map((loan) => loan !== undefined), [true, true, true, true, false]);
  assertEquals(pieces.lend(4, 1), undefined);
  loans[0]!.letGo(true);
  loans[1]!.letGo(false);
  assert(pieces.lend(4, 1));
});
