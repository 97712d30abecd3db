// Makes the pictures interactive; where that fails, the drawn ones stay.
for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
  const place = document.getElementById("picture-" + figure.name);
  const drawn = place.innerHTML;
  const options = {
    mode: "vega-lite", renderer: "svg", downloadFileName: figure.name,
    actions: { export: true, source: false, compiled: false, editor: false },
  };
  vegaEmbed(place, figure.specification, options).catch((error) => {
    place.innerHTML = drawn;
    console.error(figure.name, error);
  });
}
