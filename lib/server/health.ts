/**
 * Asking a running instance how it is, from the same host.
 *
 * @module
 */
import type { Socket } from "node:net";
import type { Config } from "../config/config.ts";

const TIMEOUT = 5_000;

/** Where to ask an instance that listens on `host`: a wildcard address is reached by loopback. */
function addressOf(host: string): string {
  if (host === "0.0.0.0" || host === "") return "127.0.0.1";
  if (host === "::" || host === "[::]") return "::1";
  return host.replace(/^\[|\]$/g, "");
}

/** Whether the instance that listens at `listen` answers its `/health` with 200 within 5 s. */
export async function askHealth(listen: Config["listen"]): Promise<boolean> {
  const to = { host: addressOf(listen.host), port: listen.port };
  // By a bare socket: Deno 2.5's node:https verifies the certificate whatever it is told.
  const socket: Socket = listen.tls
    // The certificate is for the public name, and the question goes to this very host.
    ? (await import("node:tls")).connect({ ...to, rejectUnauthorized: false })
    : (await import("node:net")).connect(to);
  return await new Promise<boolean>((resolve) => {
    let answer = "";
    const finish = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(/^HTTP\/1\.[01] 200 /.test(answer));
    };
    const timer = setTimeout(finish, TIMEOUT);
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      answer += chunk;
      if (answer.includes("\r\n")) finish();
    });
    socket.on("error", finish);
    socket.on("close", finish);
    socket.write("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  });
}
