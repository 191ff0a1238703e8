from geocfl.core.display import html_table, paragraph


def test_texts_are_shown_as_text_and_swatches_as_colors():
    page = html_table(["class", "<n>"], [("#112233", ["<script>", "1"]), (None, ["b & c", "2"])], caption="a < b")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;n&gt;" in page
    assert "b &amp; c" in page
    assert "a &lt; b" in page
    assert page.count("#112233") == 1
    assert page.count("<tr>") == 3
    assert paragraph("") == ""
