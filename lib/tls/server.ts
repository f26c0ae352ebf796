/**
 * The listener with TLS: HTTP/1 as without it, HTTP/2 by way of a bridge.
 *
 * @module
 */
import type { TLSSocket } from "node:tls";
import type { Handler } from "../http1/handler.ts";
import { type Http1Server, type ServeOptions, Server } from "../http1/server.ts";
import { type Bridge, Bridges } from "../http2/bridge.ts";
import { type Certificate, handshake, openTls } from "./door.ts";
import { TlsSocket } from "./socket.ts";

/** Options for {@linkcode serveTls}. */
export interface ServeTlsOptions extends ServeOptions {
  readonly tls: Certificate;
  /** How often it is seen whether connections still come in, ms. @default {5000} */
  readonly watch?: number;
}

/** Listens with TLS, for HTTP/2 too where the handler has a `fetch`. Rejects as `openTls` does. */
export async function serveTls(options: ServeTlsOptions, handler: Handler): Promise<Http1Server> {
  const { hostname, port, tls, watch } = options;
  const bridges = handler.fetch && new Bridges(handler.fetch.bind(handler));
  const protocols = [...bridges ? ["h2"] : [], "http/1.1"];
  let server: Server | undefined;
  const onConnection = (socket: TLSSocket) => {
    if (server?.connections.hasRoom()) greet(socket, { server, bridges });
    else socket.destroy();
  };
  const onTrouble = (error: unknown) => server?.makeRoom(error);
  const door = { hostname, port, tls, protocols, watch, onConnection, onTrouble };
  try {
    server = new Server(await openTls(door), { handler, options, scheme: "https", annex: bridges });
    return server;
  } catch (error) {
    bridges?.close();
    throw error;
  }
}

/** What a client is led to. */
interface Hall {
  readonly server: Server;
  readonly bridges: Bridges | undefined;
}

/** Leads a client to what it agrees on in its handshake. Never rejects. */
async function greet(socket: TLSSocket, { server, bridges }: Hall): Promise<void> {
  const { remoteAddress: hostname = "", remotePort: port = 0 } = socket;
  const client = new TlsSocket(socket, { transport: "tcp", hostname, port });
  const close = () => client.close();
  const waiting = { on: "rest of request", since: server.now } as const;
  let bridge: Bridge | undefined;
  try {
    await server.hold({ waiting, retire: close, close }, async () => {
      const isHttp2 = await handshake(socket) === "h2";
      if (isHttp2 && bridges) bridge = await open(client, { server, bridges });
    });
  } catch {
    return close(); // it came to nothing
  }
  if (server.isClosing) (bridge ?? client).close();
  else if (bridge) await server.hold(bridge, () => bridge!.run());
  else await server.serve(client);
}

async function open(
  client: TlsSocket,
  { server, bridges }: { server: Server; bridges: Bridges },
): Promise<Bridge> {
  try {
    return await bridges.open(client, () => server.now);
  } catch (error) {
    server.makeRoom(error);
    throw error;
  }
}
