/**
 * Asking a running instance how it is, from the same host.
 *
 * @module
 */
import type { Config } from "./config.ts";

const TIMEOUT = 5_000;

/** Where to ask an instance that listens on `host`: a wildcard address is reached by loopback. */
function addressOf(host: string): string {
  if (host === "0.0.0.0" || host === "") return "127.0.0.1";
  if (host === "::" || host === "[::]") return "::1";
  return host.replace(/^\[|\]$/g, "");
}

/** Whether the instance that listens at `listen` answers its `/health` with 200 within 5 s. */
export async function askHealth(listen: Config["listen"]): Promise<boolean> {
  const { request } = listen.tls ? await import("node:https") : await import("node:http");
  return await new Promise<boolean>((resolve) => {
    const asking = request({
      host: addressOf(listen.host),
      port: listen.port,
      path: "/health",
      timeout: TIMEOUT,
      // The certificate is for the public name, and the question goes to this very host.
      rejectUnauthorized: false,
    }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode === 200));
      response.on("error", () => resolve(false));
    });
    asking.on("timeout", () => asking.destroy(new Error("Timed out")));
    asking.on("error", () => resolve(false));
    asking.end();
  });
}
