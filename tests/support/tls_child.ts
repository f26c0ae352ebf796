/**
 * A listener with TLS in a process of its own, for limits that hold for a process:
 * `deno run tls_child.ts CERT KEY` prints its port.
 *
 * @module
 */
import { plainAnswer } from "../../lib/answer.ts";
import { serveTls } from "../../lib/tls/server.ts";

const [cert = "", key = ""] = Deno.args;
const tls = { cert: Deno.readTextFileSync(cert), key: Deno.readTextFileSync(key) };
const patience = { "rest of request": 200, "request": 200 };
const options = { hostname: "127.0.0.1", port: 0, tls, watch: 100, tick: 50, patience };
const server = await serveTls(options, {
  answer: () => Promise.resolve(plainAnswer(new Response("served"))),
  fetch: () => Promise.resolve(new Response("served")),
});
console.log(server.addr.port);
