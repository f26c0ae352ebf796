import { assertEquals } from "@std/assert";
import type { RequestInfo } from "../../lib/http1/handler.ts";
import { Bridges } from "../../lib/http2/bridge.ts";
import { rawRequest } from "../support/http.ts";
import { beginning, FRAME, framesOf, get, joined } from "../support/http2.ts";

/** Two ends of one connection inside of this machine, of which one seems to come from `from`. */
async function pair(from: string) {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const [client, served] = await Promise.all([
    Deno.connect({ hostname: "127.0.0.1", port }),
    listener.accept(),
  ]);
  const outer = {
    remoteAddr: { transport: "tcp", hostname: from, port: 1234 } as const,
    read: (buffer: Uint8Array) => served.read(buffer),
    write: (bytes: Uint8Array) => served.write(bytes),
    closeWrite: () => served.closeWrite(),
    close: () => served.close(),
  };
  return { client, outer };
}

Deno.test("a request on a bridge is its client's, with https", async () => {
  const seen: RequestInfo[] = [];
  const bridges = new Bridges((_, info) => {
    seen.push(info);
    return Promise.resolve(new Response("hello"));
  });
  const { client, outer } = await pair("192.0.2.7");
  const bridge = await bridges.open(outer, () => 0);
  const running = bridge.run();
  await client.write(joined([beginning(), get("/", { authority: "localhost" })]));
  let text = "";
  for await (const { type, payload } of framesOf(client)) {
    if (type === FRAME.data) text += new TextDecoder().decode(payload);
    if (text === "hello") break;
  }
  const remoteAddr = { transport: "tcp", hostname: "192.0.2.7", port: 1234 } as const;
  assertEquals(seen, [{ remoteAddr, scheme: "https" }]);
  client.close();
  await running;
  bridges.close();
  await bridges.finished;
});

Deno.test("nobody else on this machine gets in behind the certificate", async () => {
  let asked = 0;
  const bridges = new Bridges(() => {
    asked++;
    return Promise.resolve(new Response("secret"));
  });
  const { status, body } = await rawRequest(`127.0.0.1:${bridges.addr!.port}`, { path: "/v2/" });
  assertEquals([status, body.byteLength, asked], [421, 0, 0]);
  bridges.close();
  await bridges.finished;
});

Deno.test("a bridge ends with either of its sides", async (t) => {
  const bridges = new Bridges(() => Promise.resolve(new Response()));
  await t.step("when the client leaves", async () => {
    const { client, outer } = await pair("192.0.2.7");
    const running = (await bridges.open(outer, () => 0)).run();
    client.close();
    await running;
  });
  await t.step("when what speaks HTTP/2 has enough of it", async () => {
    const { client, outer } = await pair("192.0.2.7");
    const running = (await bridges.open(outer, () => 0)).run();
    await client.write(joined([beginning(), new Uint8Array(50).fill(0xff)]));
    for await (const _ of framesOf(client)); // until its end
    await running;
    client.close();
  });
  bridges.close();
  await bridges.finished;
});

Deno.test("a bridge waits for what its requests wait for, also after one that was given up", async () => {
  const bridges = new Bridges(() => Promise.resolve(new Response()));
  const { client, outer } = await pair("192.0.2.7");
  const bridge = await bridges.open(outer, () => 0);
  assertEquals(bridge.waiting.on, "request");
  const made = Promise.withResolvers<Response>();
  const answering = bridge.request(Promise.reject(new Error("Given up")), () => made.promise);
  assertEquals(bridge.waiting.on, "answer");
  made.resolve(new Response());
  await answering;
  assertEquals(bridge.waiting.on, "request");
  const sent = Promise.withResolvers<void>();
  const other = Promise.withResolvers<Response>();
  const answered = bridge.request(sent.promise, () => other.promise);
  assertEquals(bridge.waiting.on, "answer");
  other.resolve(new Response());
  await answered;
  assertEquals(bridge.waiting.on, "client");
  sent.resolve();
  await sent.promise;
  assertEquals(bridge.waiting.on, "request");
  bridge.retire();
  assertEquals(bridge.waiting.on, "goodbye");
  bridge.close();
  client.close();
  bridges.close();
  await bridges.finished;
});
