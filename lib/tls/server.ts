/**
 * The listener with TLS: HTTP/1 as without it, HTTP/2 by way of a bridge.
 *
 * @module
 */
import type { TLSSocket } from "node:tls";
import type { Handler } from "../http1/connection.ts";
import type { Held } from "../http1/connections.ts";
import { type Http1Server, type ServeOptions, Server } from "../http1/server.ts";
import { Bridges } from "../http2/bridge.ts";
import { type Certificate, handshake, openTls } from "./door.ts";
import { TlsSocket } from "./socket.ts";

/** Options for {@linkcode serveTls}. */
export interface ServeTlsOptions extends ServeOptions {
  readonly tls: Certificate;
  /** How often it is seen whether connections still come in, ms. @default {10000} */
  readonly watch?: number;
}

/** Listens with TLS, for HTTP/2 too where the handler has a `fetch`. Rejects as `openTls` does. */
export async function serveTls(options: ServeTlsOptions, handler: Handler): Promise<Http1Server> {
  const { hostname, port, tls } = options;
  const bridges = handler.fetch && new Bridges(handler.fetch.bind(handler));
  const protocols = [...bridges ? ["h2"] : [], "http/1.1"];
  let server: Server | undefined;
  const onConnection = (socket: TLSSocket) => {
    if (server?.connections.hasRoom()) greet(socket, { server, bridges });
    else socket.destroy();
  };
  try {
    const { watch } = options;
    const onTrouble = (error: unknown) => {
      server?.complain(error);
      server?.connections.shed();
    };
    const door = await openTls({
      hostname,
      port,
      tls,
      protocols,
      watch,
      onConnection,
      onTrouble,
    });
    server = new Server(door, { handler, options, scheme: "https", annex: bridges });
    return server;
  } catch (error) {
    bridges?.close();
    throw error;
  }
}

/** Leads a client to what it agrees on. Never rejects. */
async function greet(
  socket: TLSSocket,
  { server, bridges }: { server: Server; bridges: Bridges | undefined },
): Promise<void> {
  const { remoteAddress: hostname = "", remotePort: port = 0 } = socket;
  const close = () => void socket.destroy();
  const guest: Held = {
    waiting: { on: "rest of request", since: server.now },
    retire: close,
    close,
  };
  try {
    const client = new TlsSocket(socket, { transport: "tcp", hostname, port });
    const bridge = await server.hold(guest, async () => {
      const isHttp2 = await handshake(socket) === "h2";
      return isHttp2 && bridges && await bridges.open(client, () => server.now);
    });
    if (server.isClosing) throw new Error("Closed");
    if (bridge) await server.hold(bridge, () => bridge.run());
    else await server.serve(client);
  } catch {
    close(); // it came to nothing
  }
}
