/**
 * A method that fails for a while, as an engine does whose disk is gone.
 *
 * @module
 */

/** Makes `object[name]()` throw an error with this message until what is returned is disposed. */
export function breakMethod<Name extends string>(
  object: { [name in Name]: unknown },
  name: Name,
  message: string,
): Disposable {
  const fails = () => {
    throw new Error(message);
  };
  // On the object itself, before the prototype's, whatever was there before.
  const before = Object.getOwnPropertyDescriptor(object, name);
  Object.defineProperty(object, name, { value: fails, configurable: true });
  return {
    [Symbol.dispose]() {
      if (before) Object.defineProperty(object, name, before);
      else Reflect.deleteProperty(object, name);
    },
  };
}
