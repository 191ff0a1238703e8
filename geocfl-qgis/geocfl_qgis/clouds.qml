<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="0.7" alphaBand="-1">
      <colorPalette>
        <paletteEntry value="0" color="#ffffff" alpha="0" label="Clear"/>
        <paletteEntry value="1" color="#f7f7f7" alpha="255" label="Cloud"/>
        <paletteEntry value="2" color="#542788" alpha="255" label="Cloud shadow"/>
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
