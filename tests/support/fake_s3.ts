/**
 * An S3 service in memory that can do everything wrong that a real one may.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type Fault, Faults } from "./faults.ts";
import { contentOf } from "./content.ts";
import {
  extend,
  type HttpServer,
  type ServerReply,
  type ServerRequest,
  startHttpServer,
} from "./http_server.ts";
import { serveContent } from "./serve_content.ts";

/** What it is asked; `kind` of a fault filter. */
export type S3Operation = "get" | "put" | "delete" | "list" | "uploads" | "upload" | "part";

/** What can be wrong with one object: see {@linkcode FakeS3.spoil}. */
export type S3Fault = "break" | "stall" | "status" | "slow" | "flip" | "truncate";

/** Options for {@linkcode FakeS3.spoil}. */
export interface SpoilOptions {
  readonly at?: number;
  readonly status?: number;
  readonly times?: number;
}

/** A running fake. */
export interface FakeS3 extends HttpServer {
  /** For `CACHE_STORE`. */
  readonly setting: string;
  /** By key. A test may change them behind everybody's back. */
  readonly objects: Map<string, { bytes: Uint8Array<ArrayBuffer>; at: number }>;
  /** Uploads that were neither completed nor aborted, by id. */
  readonly uploads: Map<string, { key: string; at: number; parts: Map<number, Uint8Array> }>;
  /** By operation (`kind`) and key (`reference`). */
  readonly faults: Faults;
  /** Every request, as `get blobs/sha256/…`. */
  readonly log: string[];
  /**
   * Spoils the object of `digest` until it is written again or removed, or for so many GETs: each breaks off or stands
   * still at byte `at` (half of it), is refused with `status` (403) or trickles; or byte `at` is another, or the end.
   */
  spoil(digest: string, fault: S3Fault, options?: SpoilOptions): void;
}

/** The key of `digest` below the prefix that `setting` has. */
export function objectKey(digest: string): string {
  const hex = digest.slice("sha256:".length);
  return `registry/blobs/sha256/${hex.slice(0, 2)}/${hex}`;
}

const BUCKET = "cache";
const PAGE = 1_000;
const XML = [["content-type", "application/xml"]] as const;

function xml(root: string, body: string, status = 200): ServerReply {
  return { status, headers: XML, body: `<?xml version="1.0"?><${root}>${body}</${root}>` };
}

/** An error as S3 words it. */
export function s3Error(code: string): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
}

function etagOf(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/** Starts one with a bucket `cache`. */
export async function startFakeS3(): Promise<FakeS3> {
  const objects: FakeS3["objects"] = new Map();
  const uploads: FakeS3["uploads"] = new Map();
  const faults = new Faults();
  const log: string[] = [];
  let lastUpload = 0;

  function operationOf({ method, url }: ServerRequest): S3Operation {
    const query = url.searchParams;
    if (query.has("list-type")) return "list";
    if (query.has("uploads")) return method === "GET" ? "uploads" : "upload";
    if (query.has("partNumber")) return "part";
    if (query.has("uploadId")) return method === "DELETE" ? "delete" : "upload";
    return method === "PUT" ? "put" : method === "DELETE" ? "delete" : "get";
  }

  function list(query: URLSearchParams): ServerReply {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token") ?? "";
    const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, Math.min(PAGE, Number(query.get("max-keys") ?? PAGE)));
    const isTruncated = keys.length > page.length;
    const entries = page.map((key) => {
      const { bytes, at } = objects.get(key)!;
      return `<Contents><Key>${key}</Key><Size>${bytes.byteLength}</Size>` +
        `<LastModified>${new Date(at).toISOString()}</LastModified></Contents>`;
    });
    const next = isTruncated ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    return xml(
      "ListBucketResult",
      `<IsTruncated>${isTruncated}</IsTruncated>${next}${entries.join("")}`,
    );
  }

  function listUploads(query: URLSearchParams): ServerReply {
    const order = ({ key, id }: { key: string; id: string }) => `${key} ${id.padStart(12, "0")}`;
    const marker = query.get("key-marker") ?? "";
    const after = marker && order({ key: marker, id: query.get("upload-id-marker") ?? "" });
    const all = [...uploads].map(([id, upload]) => ({ id, ...upload }))
      .filter(({ key }) => key.startsWith(query.get("prefix") ?? ""))
      .filter((upload) => order(upload) > after)
      .sort((a, b) => order(a) < order(b) ? -1 : 1);
    const page = all.slice(0, PAGE);
    const last = page.at(-1);
    const isTruncated = all.length > page.length;
    const next = isTruncated
      ? `<NextKeyMarker>${last!.key}</NextKeyMarker><NextUploadIdMarker>${
        last!.id
      }</NextUploadIdMarker>`
      : "";
    const entries = page.map(({ key, id, at }) =>
      `<Upload><Key>${key}</Key><UploadId>${id}</UploadId>` +
      `<Initiated>${new Date(at).toISOString()}</Initiated></Upload>`
    );
    return xml(
      "ListMultipartUploadsResult",
      `<IsTruncated>${isTruncated}</IsTruncated>${next}${entries.join("")}`,
    );
  }

  function act(request: ServerRequest, key: string): ServerReply {
    const { method, url, body, headers } = request;
    const query = url.searchParams;
    const id = query.get("uploadId") ?? "";
    switch (operationOf(request)) {
      case "list":
        return list(query);
      case "uploads":
        return listUploads(query);
      case "part":
        uploads.get(id)!.parts.set(Number(query.get("partNumber")), body);
        return { status: 200, headers: [["etag", etagOf(body)]] };
      case "upload": {
        if (query.has("uploads")) {
          uploads.set(String(++lastUpload), { key, at: Date.now(), parts: new Map() });
          const firstByte = `<UploadId>${lastUpload}</UploadId>`;
          return xml("InitiateMultipartUploadResult", firstByte);
        }
        const { parts } = uploads.get(id)!;
        const order = [...parts.keys()].sort((a, b) => a - b);
        const bytes = joined(order.map((number) => parts.get(number)!));
        objects.set(key, { bytes, at: Date.now() });
        uploads.delete(id);
        return xml("CompleteMultipartUploadResult", `<Key>${key}</Key>`);
      }
      case "delete":
        if (id) uploads.delete(id);
        else objects.delete(key);
        return { status: 204, headers: [] };
      case "put": {
        const from = headers.get("x-amz-copy-source")?.split("/").slice(1).join("/");
        const source = from === undefined ? { bytes: body } : objects.get(from);
        if (!source) return { status: 404, headers: XML, body: s3Error("NoSuchKey") };
        const at = Date.now();
        objects.set(key, { bytes: source.bytes, at });
        if (from === undefined) return { status: 200, headers: [["etag", etagOf(body)]] };
        return xml(
          "CopyObjectResult",
          `<LastModified>${new Date(at).toISOString()}</LastModified>`,
        );
      }
      case "get": {
        const object = objects.get(key);
        if (!object) {
          const error = method === "HEAD" ? "" : s3Error("NoSuchKey");
          return { status: 404, headers: XML, body: error };
        }
        return serveContent(request, contentOf(asRead(key, object.bytes)), {
          headers: [["last-modified", new Date(object.at).toUTCString()]],
          etag: etagOf(object.bytes),
        });
      }
    }
  }

  /** What is wrong with objects, by key, and how often still. */
  const spoilt = new Map<string, { fault: S3Fault; at: number; status: number; left: number }>();

  /** The bytes of an object as they are read: not always those that were written. */
  function asRead(key: string, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const { fault, at } = spoilt.get(key) ?? {};
    if (fault === "truncate") return bytes.slice(0, at);
    if (fault !== "flip") return bytes;
    const flipped = bytes.slice();
    flipped[at!]! ^= 1;
    return flipped;
  }

  /** What goes wrong with one GET of a spoilt object. */
  function faultOf(request: ServerRequest, key: string): Fault | undefined {
    const spoil = request.method === "GET" ? spoilt.get(key) : undefined;
    if (!spoil || spoil.left-- <= 0) return undefined;
    const start = Number(/^bytes=(\d+)-/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
    const at = Math.max(0, spoil.at - start);
    switch (spoil.fault) {
      case "break":
        return { cutAt: at };
      case "stall":
        return { stallAt: at };
      case "status":
        return { status: spoil.status, body: s3Error("AccessDenied") };
      case "slow":
        return { rate: 2_000 };
      default:
        return undefined;
    }
  }

  const server = await startHttpServer((request) => {
    const [, bucket, ...rest] = request.url.pathname.split("/").map(decodeURIComponent);
    const key = rest.join("/");
    const kind = operationOf(request);
    log.push(`${kind} ${key}`);
    const { method, headers } = request;
    const fault = faults.next({ method, kind, reference: key, headers }) ?? faultOf(request, key);
    // What it refuses it does not do.
    if (fault?.status !== undefined) {
      const { body = s3Error("SlowDown") } = fault;
      return { status: fault.status, headers: XML, body, fault: { ...fault, status: undefined } };
    }
    if (bucket !== BUCKET) return { status: 404, headers: XML, body: s3Error("NoSuchBucket") };
    const reply = act(request, key);
    if (method === "PUT" || method === "DELETE" || method === "POST") spoilt.delete(key);
    return { ...reply, fault };
  });
  const setting = `s3://${BUCKET}/registry?endpoint=${server.url}`;
  function spoil(digest: string, fault: S3Fault, options: SpoilOptions = {}): void {
    const key = objectKey(digest);
    const { at = Math.floor((objects.get(key)?.bytes.byteLength ?? 0) / 2) } = options;
    spoilt.set(key, { fault, at, status: options.status ?? 403, left: options.times ?? Infinity });
  }
  return extend(server, { setting, objects, uploads, faults, log, spoil });
}
