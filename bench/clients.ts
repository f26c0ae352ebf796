/**
 * Clients on bare sockets, started by `load.ts`: many downloads at once, slow ones, and HEAD again and
 * again, for which wrk would wait for bodies.
 *
 * @module
 */
import type { ClientsOptions, ClientsReport } from "./load.ts";

const options: ClientsOptions & {
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
} = JSON.parse(Deno.args[0]!);
const { hostname, port } = new URL(`http://${options.host}`);
const firstByte = performance.now();
const seconds = () => (performance.now() - firstByte) / 1000;
const totals = { requests: 0, bytes: 0, failures: 0 };
const times: number[] = [];

/** The bytes of a request. */
function requestOf(method: string): Uint8Array<ArrayBuffer> {
  const headers = Object.entries({ Host: options.host, ...options.headers })
    .map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return new TextEncoder().encode(`${method} ${options.path} HTTP/1.1\r\n${headers}\r\n`);
}

/** Where the body begins in what was received so far; -1 as long as it has not. */
function bodyAt(received: Uint8Array): number {
  for (let i = 3; i < received.length; i++) {
    if (received[i] === 10 && received[i - 1] === 13 && received[i - 2] === 10) return i + 1;
  }
  return -1;
}

/** Downloads once, at no more than the rate. Resolves with whether all of it came. */
async function download(conn: Deno.TcpConn): Promise<boolean> {
  await conn.write(requestOf("GET"));
  const buffer = new Uint8Array(options.rate ? 16 * 1024 : 256 * 1024);
  let head = new Uint8Array(0);
  let body = 0;
  let size: number | undefined;
  while (size === undefined || body < size) {
    const n = await conn.read(buffer);
    if (n === null) return false;
    if (size === undefined) {
      const more = new Uint8Array(head.length + n);
      more.set(head);
      more.set(buffer.subarray(0, n), head.length);
      head = more;
      const at = bodyAt(head);
      if (at < 0) continue;
      const text = new TextDecoder().decode(head.subarray(0, at));
      if (!/^HTTP\/1\.1 200 /.test(text)) return false;
      size = Number(/^content-length: (\d+)/im.exec(text)?.[1]);
      body = head.length - at;
    } else body += n;
    totals.bytes += n;
    if (options.rate) {
      const wait = body / options.rate * 1000 - (performance.now() - firstByte);
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  return true;
}

/** HEADs one after the other until the time is over. */
async function heads(conn: Deno.TcpConn): Promise<boolean> {
  const request = requestOf("HEAD");
  const buffer = new Uint8Array(16 * 1024);
  while (seconds() < options.heads!) {
    await conn.write(request);
    let end = 0;
    do {
      const n = await conn.read(buffer.subarray(end));
      if (n === null) return false;
      end += n;
    } while (!(buffer[end - 1] === 10 && buffer[end - 3] === 10));
    if (buffer[9] !== 50) return false; // 2xx
    totals.requests++;
    totals.bytes += end;
  }
  return true;
}

async function client(): Promise<void> {
  let isDone = false;
  try {
    using conn = await Deno.connect({ hostname, port: Number(port) });
    const limit = options.leaveAfter ? options.leaveAfter * 1000 : undefined;
    const timer = limit && setTimeout(() => conn.close(), limit);
    isDone = await (options.heads ? heads(conn) : download(conn));
    clearTimeout(timer);
  } catch {
    // counted below
  }
  if (isDone) times.push(seconds());
  else totals.failures++;
}

await Promise.all(Array.from({ length: options.count }, client));
const report: ClientsReport = { times, ...totals, seconds: seconds() };
console.log(JSON.stringify(report));
Deno.exit(0);
