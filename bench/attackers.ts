/**
 * Clients that want a proxy's memory, started by `rows/attack.ts` in a process of their own. They come from many
 * addresses, and most of them read nothing.
 *
 * @module
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** What {@linkcode ATTACKS} are made with. */
export interface AttackOptions {
  /** One of {@linkcode ATTACKS}. */
  readonly attack: string;
  readonly port: number;
  readonly tls: boolean;
  /** Digest of a large blob that is in the cache. */
  readonly blob: string;
  /** How long connections are held when all has been sent, ms. */
  readonly hold: number;
}

/** From how many addresses they come. */
const ADDRESSES = 100;
const small = "/v2/attack/small/manifests";

type Attack = (options: AttackOptions) => Promise<void>;

/** By name. */
const ATTACKS: Readonly<Record<string, Attack>> = {
  "long queries": asked(4_000, (i) => head(`${small}/latest?${i}${"q".repeat(60_000)}`)),
  "many queries": asked(20_000, (i) => head(`${small}/latest?${i}${"q".repeat(900)}`, padding(30))),
  "long tags": asked(20_000, (i) => get(`${small}/${String(i).padEnd(128, "x")}`)),
  "many Accepts": asked(
    20_000,
    (i) => get(`${small}/latest`, `Accept: */*, ${"a/b, ".repeat(900)}x/${i}\r\n`),
  ),
  "many credentials": asked(
    5_000,
    (i) => head(`${small}/latest`, `Authorization: Bearer ${i}${"c".repeat(4_000)}\r\n`),
  ),
  "not modified": asked(
    20_000,
    (i) => get(`${small}/latest?${i}`, `If-None-Match: "sha256:${"0".repeat(64)}"\r\n`),
  ),
  "one large manifest": unread(250, () => get("/v2/attack/large/manifests/one").repeat(20)),
  "large manifests": unread(250, (i) => get(`/v2/attack/large/manifests/n${i}`).repeat(20)),
  "tokens": unread(1_600, (i) => token(`repository:attack/${i}${"s".repeat(50_000)}:pull`)),
  "half heads": unread(8_000, () => get("/v2/", padding(16)).slice(0, -4)),
  "half bodies": unread(4_000, () => form("x".repeat(60_000))),
  "idle": unread(8_000, () => get("/health")),
  "blobs": unread(4_000, (_, { blob }) => get(`/v2/attack/blob/blobs/${blob}`)),
  "ranges": unread(
    2_000,
    (i, { blob }) =>
      get(`/v2/attack/blob/blobs/${blob}`, `Range: bytes=${i}-${i + 30_000_000}\r\n`),
  ),
  "pipelined": unread(500, () => get(`${small}/latest`).repeat(2_000)),
  "lists": unread(1_000, () => get("/v2/attack/small/tags/list").repeat(20)),
};

function padding(kib: number): string {
  return `X-Padding: ${"p".repeat(1_000)}\r\n`.repeat(kib);
}

function head(path: string, fields = ""): string {
  return `HEAD ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${fields}\r\n`;
}

function get(path: string, fields = ""): string {
  return `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${fields}\r\n`;
}

function token(scope: string): string {
  return `GET /v2/auth?scope=${scope} HTTP/1.1\r\nHost: quay.localhost\r\n\r\n`;
}

function form(body: string): string {
  return `POST /v2/auth HTTP/1.1\r\nHost: quay.localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n` +
    `Content-Length: 65536\r\n\r\n${body}`;
}

/** A connection from the `i`th address; undefined where none comes about. */
function open({ port, tls }: AttackOptions, i: number): Promise<Socket | undefined> {
  const localAddress = `127.0.1.${1 + i % ADDRESSES}`;
  const socket = connect({ host: "127.0.0.1", port, localAddress });
  const secure = tls ? connectTls({ socket, rejectUnauthorized: false }) : socket;
  return new Promise((resolve) => {
    const none = () => resolve(undefined);
    socket.on("error", none);
    secure.on("error", none);
    secure.on("close", none);
    secure.once(tls ? "secureConnect" : "connect", () => resolve(secure));
  });
}

/** Requests one after the other on a few connections, their answers read. */
function asked(count: number, request: (i: number) => string): Attack {
  return async (options) => {
    let next = 0;
    let answers = 0;
    const work = async (connection: number) => {
      while (next < count) {
        const socket = await open(options, connection);
        if (!socket) return;
        let isOpen = true;
        let wake = () => {};
        socket.on("data", () => wake());
        socket.on("close", () => {
          isOpen = false;
          wake();
        });
        while (isOpen && next < count) {
          const answered = new Promise<void>((resolve) => wake = resolve);
          socket.write(request(next++), "latin1");
          await answered;
          answers++;
        }
        socket.destroy();
      }
    };
    await Promise.all(Array.from({ length: 16 }, (_, i) => work(i)));
    console.log(`${answers} answers`);
  };
}

/** One request on each of many connections, and nothing is read. */
function unread(count: number, request: (i: number, options: AttackOptions) => string): Attack {
  return async (options) => {
    const sockets: Socket[] = [];
    let closed = 0;
    for (let from = 0; from < count; from += 64) {
      const more = await Promise.all(
        Array.from({ length: Math.min(64, count - from) }, async (_, k) => {
          const socket = await open(options, from + k);
          socket?.pause();
          socket?.on("close", () => closed++);
          socket?.write(request(from + k, options), "latin1");
          return socket;
        }),
      );
      sockets.push(...more.filter((socket) => socket !== undefined));
    }
    await new Promise((resolve) => setTimeout(resolve, options.hold));
    console.log(`${sockets.length} connections, ${closed} closed`);
    for (const socket of sockets) socket.destroy();
  };
}

/** The names of the attacks. */
export const NAMES: readonly string[] = Object.keys(ATTACKS);

if (import.meta.main) {
  const options: AttackOptions = JSON.parse(Deno.args[0]!);
  await ATTACKS[options.attack]!(options);
  Deno.exit();
}
