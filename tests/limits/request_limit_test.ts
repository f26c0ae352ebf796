import { assertEquals, assertRejects } from "@std/assert";
import { RequestLimit } from "../../lib/limits/request_limit.ts";
import { OciError } from "../../lib/oci/error.ts";
import { type Answer, type Delivery, plainAnswer } from "../../lib/response/answer.ts";

/** An answer whose body ends when the test says so. */
function slowAnswer() {
  const delivered = Promise.withResolvers<Delivery>();
  const answer: Answer = { response: new Response(), delivered: delivered.promise };
  return { answer, end: () => delivered.resolve({ bytes: 0, complete: false }) };
}

const nothing = () => Promise.resolve(plainAnswer(new Response()));

Deno.test("a client with too many requests under way gets 429 with Retry-After, and no other does", async () => {
  let rejected = 0;
  const limit = new RequestLimit({ perClient: 2, onRejected: () => rejected++ });
  const first = slowAnswer();
  await limit.run("192.0.2.1", () => Promise.resolve(first.answer));
  await limit.run("192.0.2.1", () => Promise.resolve(slowAnswer().answer));
  let isAsked = false;
  const refused = limit.run("192.0.2.1", () => {
    isAsked = true;
    return nothing();
  });
  const error = await assertRejects(() => refused, OciError);
  assertEquals([error.status, error.headers?.["retry-after"]], [429, "5"]);
  assertEquals([isAsked, rejected], [false, 1]);
  await limit.run("192.0.2.2", nothing);
  first.end();
  await first.answer.delivered;
  await limit.run("192.0.2.1", nothing);
});

Deno.test("addresses of one IPv6 network are one client", async () => {
  const limit = new RequestLimit({ perClient: 1 });
  await limit.run("2001:db8::1", () => Promise.resolve(slowAnswer().answer));
  await assertRejects(() => limit.run("2001:db8::ffff:2", nothing), OciError);
  await limit.run("2001:db8:0:1::1", nothing);
});

Deno.test("a client is forgotten when its last request ends: answered, failed or left", async () => {
  const limit = new RequestLimit({});
  await limit.run("192.0.2.1", nothing);
  assertEquals(limit.clients, 0);
  await assertRejects(() => limit.run("192.0.2.1", () => Promise.reject(new Error("broken"))));
  assertEquals(limit.clients, 0);
  const slow = slowAnswer();
  await limit.run("192.0.2.1", () => Promise.resolve(slow.answer));
  assertEquals(limit.clients, 1);
  slow.end();
  await slow.answer.delivered;
  await Promise.resolve(); // what is called at its end
  assertEquals(limit.clients, 0);
});

Deno.test("requests without a client address are not limited", async () => {
  const limit = new RequestLimit({ perClient: 1 });
  for (let i = 0; i < 3; i++) {
    await limit.run(undefined, () => Promise.resolve(slowAnswer().answer));
  }
});
