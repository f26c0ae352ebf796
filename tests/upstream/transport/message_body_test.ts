import { assert, assertEquals, assertRejects } from "@std/assert";
import { EventEmitter } from "node:events";
import { bodyOfMessage, type MessageBody } from "../../../lib/upstream/transport/message_body.ts";
import { drain } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

/** A message that a test sends, and whether it is paused or destroyed. */
class FakeMessage extends EventEmitter {
  isPaused = true;
  destroyed: { readonly by?: Error } | undefined;

  pause() {
    this.isPaused = true;
    return this;
  }

  resume() {
    this.isPaused = false;
    return this;
  }

  destroy(by?: Error) {
    this.destroyed = { by };
    return this;
  }
}

/** A message and its body; `emit` is what happens to the connection. */
function start() {
  const message = new FakeMessage();
  return { message, body: bodyOfMessage(message as unknown as MessageBody) };
}

Deno.test("the body of a message is what came, in order", async () => {
  const { message, body } = start();
  const bytes = randomBytes(3000, 1);
  const drained = drain(body);
  for (let at = 0; at < 3000; at += 1000) message.emit("data", bytes.slice(at, at + 1000));
  message.emit("end");
  message.emit("close");
  assertEquals(await drained, { bytes });
});

Deno.test("the connection is paused while a quarter of a megabyte waits, and goes on when it is read", async () => {
  const { message, body } = start();
  await Promise.resolve();
  assertEquals(message.isPaused, false);
  message.emit("data", new Uint8Array(2 ** 18 - 1));
  assertEquals(message.isPaused, false);
  message.emit("data", new Uint8Array(1));
  assertEquals(message.isPaused, true);
  const reader = body.getReader();
  await reader.read();
  await Promise.resolve();
  assertEquals(message.isPaused, false);
});

for (const event of ["aborted", "close"]) {
  Deno.test(`a connection that ends before the body (${event}) breaks it`, async () => {
    const { message, body } = start();
    message.emit("data", new Uint8Array([1]));
    const reader = body.getReader();
    await reader.read();
    message.emit(event);
    await assertRejects(() => reader.read(), Error, "before the end of the body");
  });
}

Deno.test("what breaks the connection breaks the body, and harms nobody afterwards", async () => {
  const { message, body } = start();
  message.emit("error", new Error("Connection reset"));
  message.emit("error", new Error("And again"));
  message.emit("data", new Uint8Array([1]));
  message.emit("end");
  message.emit("close");
  await assertRejects(() => body.getReader().read(), Error, "Connection reset");
});

Deno.test("who cancels the body ends the connection", async () => {
  const { message, body } = start();
  const reason = new Error("Nobody reads it");
  await body.cancel(reason);
  assert(message.destroyed);
  assertEquals(message.destroyed.by, reason);
  message.emit("data", new Uint8Array([1]));
  message.emit("error", reason);
  message.emit("close");
});
