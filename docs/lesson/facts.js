/** What build.py puts into the page: lines of jaxcnn's code, digits, and first weights. */

export const facts = JSON.parse(document.getElementById("facts").textContent);
