/**
 * Where a record's image may lie: below the image folder that was given, nowhere else.
 * Refuses absolute paths, addresses, backslashes and names that climb out; links on a disk are the opener's to check.
 */
import { InputError, messageOf } from "../errors.ts";
import { checkName } from "../formats/folder.ts";

/** The path itself, when it is relative and stays inside. @throws InputError whose message starts with `where` */
export function checkImagePath(path: string, where: string): string {
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(path)) {
    throw new InputError(`${where}: "image" is "${path}", expected a path inside the image folder`);
  }
  try {
    return checkName(path);
  } catch (error) {
    throw new InputError(`${where}: "image" is no path inside the image folder: ${messageOf(error)}`);
  }
}
