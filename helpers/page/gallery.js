// The samples as thumbnails, without their labels: first the reader says what there is to see.
function render({ model, el }) {
  el.className = "xray-gallery";
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Samples");
  model.get("thumbnails").forEach((bytes, number) => {
    const button = document.createElement("button"), picture = document.createElement("img");
    const title = document.createElement("span");
    picture.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    picture.alt = "";
    title.textContent = `Sample ${number + 1}`;
    button.append(picture, title);
    button.addEventListener("click", () => model.send({ sample: number }));
    el.append(button);
  });
}

export default { render };
