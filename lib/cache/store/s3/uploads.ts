/**
 * Multipart uploads, which are completed or aborted by us: the client library has only whole ones.
 *
 * @module
 */
import { isMissing, REQUEST_TIMEOUT, type S3Requests } from "./requests.ts";

/** A part of a multipart upload that the service has. */
export interface UploadedPart {
  readonly number: number;
  readonly etag: string;
}

/** A multipart upload that was neither completed nor aborted. */
export interface PendingUpload {
  readonly key: string;
  readonly id: string;
  /** When it began, ms since the epoch. */
  readonly startedAt: number;
}

/** `text` of the first element called `name`; S3's answers are flat and their ids need no unescaping. */
function element(xml: string, name: string): string | undefined {
  const [open, close] = [`<${name}>`, `</${name}>`];
  for (let at = xml.indexOf(open); at >= 0; at = xml.indexOf(open, at)) {
    at += open.length;
    const end = xml.indexOf("<", at);
    if (end >= 0 && xml.startsWith(close, end)) return xml.slice(at, end);
  }
  return undefined;
}

/** What is within each element called `name`; they do not nest. */
function* elements(xml: string, name: string): Iterable<string> {
  const [open, close] = [`<${name}>`, `</${name}>`];
  for (let at = xml.indexOf(open); at >= 0; at = xml.indexOf(open, at)) {
    at += open.length;
    const end = xml.indexOf(close, at);
    if (end < 0) return;
    yield xml.slice(at, end);
    at = end;
  }
}

function unescapeXml(text: string): string {
  const names: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
  return text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (whole, decimal, hex, name) => {
    if (decimal) return String.fromCodePoint(Number(decimal));
    if (hex) return String.fromCodePoint(parseInt(hex, 16));
    return names[name] ?? whole;
  });
}

/** The uploads below the prefix. Methods throw as {@linkcode S3Requests} does. */
export class S3Uploads {
  readonly #requests: S3Requests;

  constructor(requests: S3Requests) {
    this.#requests = requests;
  }

  /** Begins one; returns its id. */
  async begin(key: string): Promise<string> {
    const xml = await this.#requests.request(key, { method: "POST", query: "uploads" });
    const id = element(xml, "UploadId");
    if (!id) throw new Error("The store began an upload without an id");
    return unescapeXml(id);
  }

  /** Uploads part `number`, from 1 on. */
  async part(
    key: string,
    { id, number, bytes }: { id: string; number: number; bytes: Uint8Array<ArrayBuffer> },
  ): Promise<UploadedPart> {
    const query = { partNumber: String(number), uploadId: id };
    let etag = "";
    await this.#requests.request(key, {
      method: "PUT",
      query,
      payload: bytes,
      onHeaders: (headers) => etag = headers.get("etag") ?? "",
    });
    return { number, etag };
  }

  /** Makes the object of the parts. */
  async complete(
    key: string,
    { id, parts }: { id: string; parts: readonly UploadedPart[] },
  ): Promise<void> {
    const list = parts.map(({ number, etag }) =>
      `<Part><PartNumber>${number}</PartNumber><ETag>${etag}</ETag></Part>`
    );
    const payload = new TextEncoder().encode(
      `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${
        list.join("")
      }</CompleteMultipartUpload>`,
    );
    const xml = await this.#requests.request(key, {
      method: "POST",
      query: { uploadId: id },
      payload,
    });
    // An error may come after the 200: the service answers before it has put the parts together.
    if (!xml.includes("<CompleteMultipartUploadResult")) {
      throw new Error(`The store did not complete an upload: ${element(xml, "Code") ?? "?"}`);
    }
  }

  /** Drops one with its parts; one that is gone is dropped already. */
  async abort(key: string, id: string): Promise<void> {
    try {
      await this.#requests.request(key, { method: "DELETE", query: { uploadId: id }, status: 204 });
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Every one under way below `prefix`. */
  async *list(prefix: string): AsyncIterable<PendingUpload> {
    const query: Record<string, string> = { uploads: "", prefix: this.#requests.prefix + prefix };
    while (true) {
      const xml = await this.#requests.ask(async () => {
        const request = { method: "GET", objectName: "", query, returnBody: true } as const;
        return await (await this.#requests.client.makeRequest(request)).text();
      }, REQUEST_TIMEOUT);
      for (const upload of elements(xml, "Upload")) {
        const key = unescapeXml(element(upload, "Key") ?? "");
        const id = unescapeXml(element(upload, "UploadId") ?? "");
        if (!key.startsWith(this.#requests.prefix) || !id) continue;
        const startedAt = Date.parse(element(upload, "Initiated") ?? "");
        yield { key: key.slice(this.#requests.prefix.length), id, startedAt };
      }
      const next = element(xml, "NextKeyMarker");
      if (element(xml, "IsTruncated") !== "true" || !next) return;
      query["key-marker"] = unescapeXml(next);
      query["upload-id-marker"] = unescapeXml(element(xml, "NextUploadIdMarker") ?? "");
    }
  }
}
