import { assert, assertEquals } from "@std/assert";
import { Buffers } from "../../../lib/server/http1/buffers.ts";

const MIB = 2 ** 20;

Deno.test("a buffer is small at first, larger for who has taken much, and used again", () => {
  const buffers = new Buffers();
  let buffer = buffers.take();
  assertEquals(buffer.byteLength, MIB / 16);
  const sizes: number[] = [];
  for (let sent = 0; sent < 16 * MIB; sent += buffer.byteLength) {
    buffer = buffers.renew(buffer, sent);
    if (buffer.byteLength !== sizes.at(-1)) sizes.push(buffer.byteLength);
  }
  assertEquals(sizes, [MIB / 16, MIB / 8, MIB / 4, MIB / 2, MIB]);
  assertEquals(buffers.renew(buffer, 1000 * MIB), buffer);
  buffers.give(buffer);
  assertEquals(buffers.renew(buffers.take(), 1000 * MIB), buffer);
});

Deno.test("buffers are smaller the more are in use", () => {
  const buffers = new Buffers();
  const taken = Array.from({ length: 200 }, () => buffers.take());
  assertEquals(new Set(taken).size, 200);
  const renewed = taken.map((buffer) => buffers.renew(buffer, 1000 * MIB));
  assertEquals(new Set(renewed.map(({ byteLength }) => byteLength)), new Set([MIB / 16]));
});

Deno.test("who has a large buffer gets a small one when many have come", () => {
  const buffers = new Buffers();
  const early = Array.from({ length: 16 }, () => buffers.renew(buffers.take(), 1000 * MIB));
  assertEquals(new Set(early.map(({ byteLength }) => byteLength)), new Set([MIB]));
  for (let i = 0; i < 184; i++) buffers.take();
  const renewed = early.map((buffer) => buffers.renew(buffer, 1000 * MIB));
  assertEquals(new Set(renewed.map(({ byteLength }) => byteLength)), new Set([MIB / 16]));
  assertEquals(new Set(renewed).size, 16);
});

Deno.test("no more than eight megabytes of free buffers are kept, of whatever sizes", () => {
  const buffers = new Buffers();
  const all = new Set<Uint8Array>();
  const use = (count: number, sent: number) => {
    const taken = Array.from({ length: count }, () => buffers.renew(buffers.take(), sent));
    for (const buffer of taken) buffers.give(buffer);
    return taken;
  };
  for (const sent of [0, MIB, 2 * MIB, 1000 * MIB]) for (const one of use(16, sent)) all.add(one);
  let kept = 0;
  for (const sent of [0, MIB, 2 * MIB, 1000 * MIB]) {
    const again = Array.from({ length: 16 }, () => buffers.renew(buffers.take(), sent));
    for (const one of again) if (all.delete(one)) kept += one.byteLength;
  }
  assert(kept > 0 && kept <= 8 * MIB, `${kept}`);
});

Deno.test("a buffer is let go when nothing was needed for a while, and not before", () => {
  const buffers = new Buffers();
  const first = buffers.take();
  buffers.give(first);
  buffers.trim(); // used since
  const again = buffers.take();
  assertEquals(again, first);
  buffers.trim(); // in use
  buffers.give(again);
  buffers.trim();
  buffers.trim();
  assert(buffers.take() !== first);
});

Deno.test("thousands that take nothing have little, and who takes what is sent is not hurt by them", () => {
  const buffers = new Buffers();
  for (let i = 0; i < 8_000; i++) buffers.take();
  assert(buffers.bytes < 48 * MIB, `${buffers.bytes}`);
  assertEquals(buffers.take().byteLength, 4096);
  let reader = buffers.take();
  for (let sent = 0; sent < 16 * MIB; sent += reader.byteLength) {
    reader = buffers.renew(reader, sent);
  }
  assertEquals(reader.byteLength, 4096, "there is no room left by now");

  const fewer = new Buffers();
  for (let i = 0; i < 3_500; i++) fewer.take();
  let other = fewer.take();
  for (let sent = 0; sent < MIB; sent += other.byteLength) other = fewer.renew(other, sent);
  assertEquals(other.byteLength, MIB / 16);
});
