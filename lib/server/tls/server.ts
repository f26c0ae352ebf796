/**
 * The listener with TLS: HTTP/1.1, as without it.
 *
 * @module
 */
import type { TLSSocket } from "node:tls";
import { trackAllocation } from "../../util/gc.ts";
import type { Handler } from "../http1/handler.ts";
import { type Http1Server, type ServeOptions, Server } from "../http1/server.ts";
import { type Certificate, handshake, openTls } from "./acceptor.ts";
import { TlsSocket } from "./socket.ts";

/** Options for {@linkcode serveTls}. */
export interface ServeTlsOptions extends ServeOptions {
  readonly tls: Certificate;
  /** How often it is seen whether connections still come in, ms. @default {5000} */
  readonly watch?: number;
}

/** Connections at once: with TLS one takes 50 KB, and 130 with something half sent. */
const MOST = 1024;

/** What a connection leaves to be collected that the collector does not see, bytes. */
const GARBAGE = 100 * 1024;

/** Listens with TLS. Rejects as `openTls` does. */
export async function serveTls(options: ServeTlsOptions, handler: Handler): Promise<Http1Server> {
  const { hostname, port, tls, watch } = options;
  let server: Server | undefined = undefined;
  const onConnection = (socket: TLSSocket) => {
    trackAllocation(GARBAGE);
    const { remoteAddress: address = "" } = socket;
    // No answer can be read before a handshake, which would cost more than the refusal spares.
    const isWelcome = server?.connections.hasRoomOf(address) && server.connections.hasRoom();
    if (server && isWelcome) greet(socket, server);
    else socket.destroy();
  };
  const onTrouble = (error: unknown) => server?.makeRoom(error);
  const door = await openTls({ hostname, port, tls, watch, onConnection, onTrouble });
  server = new Server(door, {
    handler,
    options: { ...options, most: options.most ?? MOST },
    scheme: "https",
  });
  return server;
}

/** Serves a client once its handshake has been made. Never rejects. */
async function greet(socket: TLSSocket, server: Server): Promise<void> {
  const { remoteAddress: hostname = "", remotePort: port = 0 } = socket;
  const client = new TlsSocket(socket, { transport: "tcp", hostname, port });
  const close = () => client.close();
  const waiting = { on: "rest of request", since: server.now } as const;
  try {
    const held = { waiting, address: hostname, drain: close, close };
    await server.hold(held, () => handshake(socket));
  } catch {
    return close(); // it came to nothing
  }
  if (server.isClosing) close();
  else await server.serve(client);
}
