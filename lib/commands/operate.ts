/**
 * Decides where a command runs. Only one process can open a cache directory, so if an instance is running,
 * it carries out the command.
 *
 * @module
 */
import { join } from "@std/path";
import { CacheOpenError } from "../cache/cache.ts";
import { IndexLockedError } from "../cache/index/sqlite_file.ts";
import type { Config } from "../config/config.ts";
import { type Operations, ProxyOperations } from "../operator/operations.ts";
import { Proxy } from "../proxy/proxy.ts";
import { NotRunningError, RemoteOperations } from "./remote.ts";

/** Thrown when a command cannot run. The message is printed as it is. */
export class OperateError extends Error {
  override readonly name = "OperateError";
}

/** Operations, and a function that releases them. */
export interface Operated {
  readonly operations: Operations;
  close(): Promise<void>;
}

/** Options for {@linkcode operate}. */
export interface OperateOptions {
  /** Whether to create a cache that does not exist. */
  readonly creates: boolean;
}

/**
 * Returns the operations on the cache that `config` describes. It opens an unused cache directory in this
 * process. If an instance uses the directory, or several instances share the store, it returns the
 * operations of the instance at `ADMIN_ADDR`. Throws an {@linkcode OperateError}.
 */
export async function operate(config: Config, options: OperateOptions): Promise<Operated> {
  const { cache } = config;
  if (!cache) throw new OperateError("The cache is off");
  const isOwn = cache.store.engine === "files" && cache.index.engine === "sqlite";
  if (isOwn && exists(join(cache.dir, "index.sqlite"))) {
    try {
      return await openHere(config);
    } catch (error) {
      const isLocked = error instanceof CacheOpenError && error.cause instanceof IndexLockedError;
      if (!isLocked) throw told(error);
    }
    return await askInstance(config, `Another process is using ${cache.dir}`);
  }
  try {
    return await askInstance(config);
  } catch (error) {
    if (!(error instanceof OperateError)) throw error;
  }
  if (isOwn && !options.creates) throw new OperateError(`There is no cache in ${cache.dir}`);
  try {
    return await openHere(config);
  } catch (error) {
    throw told(error);
  }
}

function told(error: unknown): unknown {
  return error instanceof CacheOpenError ? new OperateError(error.message) : error;
}

/** Opens the cache in this process. No other process has it open. */
async function openHere(config: Config): Promise<Operated> {
  // Keeping images warm is a server's job. Here it would only delay the command.
  const proxy = new Proxy({ ...config, warm: { ...config.warm, images: [] } });
  const close = () => proxy.close();
  try {
    await proxy.ready;
    if (!proxy.cache) {
      throw new OperateError("Cannot open the cache: its disk is failing or full");
    }
  } catch (error) {
    await close();
    throw error;
  }
  const operations = new ProxyOperations(proxy);
  return {
    operations: {
      images: () => operations.images(),
      remove: (name) => operations.remove(name),
      warm: (images, options) => operations.warm(images, options),
      // Statistics of this short-lived process are meaningless.
      report: async () => ({ cache: (await operations.report()).cache }),
    },
    close,
  };
}

/**
 * Returns the operations of the running instance. `because` is the reason why this process cannot open the
 * cache.
 */
async function askInstance({ admin }: Config, because?: string): Promise<Operated> {
  const reason = because === undefined ? "" : `${because}, and `;
  if (!admin) {
    throw new OperateError(`${reason}ADMIN_ADDR is off, so the instance cannot be reached`);
  }
  const operations = new RemoteOperations(admin);
  try {
    await operations.check();
  } catch (error) {
    if (!(error instanceof NotRunningError)) throw error;
    throw new OperateError(`${reason}${lowerFirst(error.message)}`);
  }
  return { operations, close: () => Promise.resolve() };
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
