import { assertEquals } from "@std/assert";
import { eventStream } from "../../lib/admin/events.ts";
import { readEvents } from "../../lib/commands/event_stream.ts";

Deno.test("events are sent in order, and the stream ends with its producer", async () => {
  const { body } = eventStream((send) => {
    send({ n: 1 }, "first");
    send("two\nlines");
    return Promise.resolve();
  });
  const found = await Array.fromAsync(readEvents(body!));
  assertEquals(found.map(({ event, data }) => [event, JSON.parse(data)]), [
    ["first", { n: 1 }],
    ["message", "two\nlines"],
  ]);
});

Deno.test("an error is the last event", async () => {
  const { body } = eventStream(() => Promise.reject(new Error("No room")));
  const [only] = await Array.fromAsync(readEvents(body!));
  assertEquals([only!.event, JSON.parse(only!.data).error], ["error", "No room"]);
});

Deno.test("no events are sent after the client disconnects", async () => {
  const left = Promise.withResolvers<void>();
  const { body } = eventStream(async (send, signal) => {
    signal.addEventListener("abort", () => left.resolve());
    await left.promise;
    send("too late");
  });
  await body!.cancel();
  await left.promise;
});

Deno.test("a stream whose client does not read is aborted", async () => {
  const ended = Promise.withResolvers<number>();
  const text = "x".repeat(2 ** 20);
  const { body } = eventStream(async (send, signal) => {
    let sent = 0;
    for (; sent < 100 && !signal.aborted; sent++) {
      send(text);
      await Promise.resolve();
    }
    ended.resolve(sent);
  });
  // Four MiB wait, the fifth is too much.
  assertEquals(await ended.promise, 4);
  const failure = await body!.getReader().read().catch((error: Error) => error.message);
  assertEquals(failure, "The client does not read");
});
