"""What a person does with the page: pointing, typing, sliding, answering, printing."""

import re

import pytest

from tests.lesson.test_numbers import SCENES

pytestmark = pytest.mark.slow

WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def figure(page, scene, name):
    return page.locator(f'#{scene} .numbers figure[data-array="{name}"]')


def cell(page, scene, name, flat):
    return figure(page, scene, name).locator(f'td[data-flat="{flat}"]')


def marked(page, scene, name):
    cells = figure(page, scene, name).locator("td.with, td.here")
    return [int(each) for each in cells.evaluate_all("all => all.map(c => c.dataset.flat)")]


def notes(page, scene, name):
    """The letters in the corners of an array's marked numbers."""
    cells = figure(page, scene, name).locator("td.with, td.here")
    return "".join(cells.evaluate_all("all => all.map(c => c.dataset.note ?? '')"))


def reading(page, scene):
    lines = page.locator(f"#{scene} .reading").inner_text().splitlines()
    return "\n".join(filter(None, lines))


def numbers(page, scene, name):
    return page.evaluate("([id, name]) => lesson.arrays(id)[name].data", [scene, name])


def press(page, scene, button):
    page.locator(f"#{scene}").get_by_role("button", name=button, exact=True).click()


# --- Pointing -------------------------------------------------------------------------

POINT_AT_ALL = """([id]) => {
    const said = [];
    for (const cell of document.querySelectorAll(`#${id} .numbers td`)) {
        cell.focus();
        const name = cell.closest("[data-array]").dataset.array;
        const lines = document.querySelector(`#${id} .reading`).innerText.split("\\n");
        said.push([name, cell.textContent, cell.className, lines]);
    }
    return said;
}"""


ARITHMETIC = re.compile(r"(max|[\d\s.·−/+(),])+")


def value_of(spelled):
    """What a sum that is spelled with numbers comes to."""
    return eval(spelled.replace("·", "*").replace("−", "-"))


@pytest.mark.parametrize("scene", SCENES)
def test_every_number_says_how_it_came_about(page, scene):
    # Numbers that are no whole ones were rounded before they were written down.
    slack = {"network": 0.02, "softmax": 0.011}.get(scene, 0.006)
    spelled = 0
    for name, text, classes, said in page.evaluate(POINT_AT_ALL, [scene]):
        assert "here" in classes
        lines = [line for line in said if line]
        assert re.match(rf"{name}(\[[\d,]+\])? = ", lines[0]), lines
        *sums, result = [line.partition("= ")[2] for line in lines if "= " in line]
        for each in sums[1:]:
            if ARITHMETIC.fullmatch(each):
                wanted = float(result.replace("−", "-"))
                assert value_of(each) == pytest.approx(wanted, abs=slack), lines
                spelled += 1
        has_twin = len(lines) > 1 and lines[1].startswith(f"d{name}")
        assert (sums[0] if has_twin else result) == text, lines
    assert spelled >= 2


def test_an_output_shows_its_window(page):
    cell(page, "window", "Y", 4).hover()
    assert marked(page, "window", "X") == [5, 6, 9, 10]
    assert notes(page, "window", "X") == "abcd"
    assert marked(page, "window", "W") == [0, 1, 2, 3]
    assert "= 0 + 1 · 1 + 3 · (−1) + 0 · 0 + 1 · 2\n= 0" in reading(page, "window")


def test_a_weight_shows_the_block_that_it_saw(page):
    cell(page, "weights", "dW", 3).hover()
    assert marked(page, "weights", "X") == [5, 6, 7, 9, 10, 11, 13, 14, 15]
    assert marked(page, "weights", "dY") == list(range(9))
    cell(page, "weights", "W", 0).hover()
    assert marked(page, "weights", "X") == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_the_kernel_is_seen_turned_from_a_pixel(page):
    cell(page, "input", "dX", 10).hover()
    assert marked(page, "input", "dY") == [4, 5, 7, 8]
    assert notes(page, "input", "dY") == "dcba"
    assert notes(page, "input", "Wr") == "dcba"
    assert notes(page, "input", "D") == "dcba"
    board = page.locator("#input .board")
    assert "pixel (2, 2)" in board.inner_text()
    assert "".join(board.locator("li b").all_inner_texts()) == "dcba"
    assert board.locator("li.missing").count() == 0
    cell(page, "input", "X", 0).hover()
    assert board.locator("li.missing").count() == 3
    assert notes(page, "input", "dY") == "a"


@pytest.mark.parametrize(("stride", "met"), [(1, 9), (2, 4), (3, 1)])
def test_a_stride_jumps_over_windows(page, stride, met):
    page.evaluate("s => lesson.set('stride', {stride: s})", stride)
    pixel = 2 * 7 + 2
    cell(page, "stride", "dX", pixel).hover()
    board = page.locator("#stride .board")
    assert board.locator("li:not(.missing)").count() == met
    assert board.get_by_text("jumped over").count() == 9 - met
    outputs = len(numbers(page, "stride", "dY")) ** 0.5
    within = (stride * (outputs - 1) + 1) ** 2
    between = figure(page, "stride", "D").locator("td.between")
    assert between.count() == within - outputs**2
    if stride > 1:
        between.first.hover()
        assert f"the stride of {stride} jumps over it" in reading(page, "stride")


def test_a_winner_shows_where_its_gradient_goes(page):
    cell(page, "maximum", "winner", 3).hover()
    assert marked(page, "maximum", "dX") == [11]
    assert marked(page, "maximum", "X") == [11]
    assert "2 are equal: the first, row by row, wins" in reading(page, "maximum")


def test_an_input_shows_the_sums_that_it_is_in(page):
    cell(page, "window", "X", 5).hover()
    assert marked(page, "window", "Y") == [0, 1, 3, 4]
    assert notes(page, "window", "Y") == "dcba"
    assert "It is in 4 sums" in reading(page, "window")


def test_a_finger_points_and_a_second_touch_edits(open_page):
    page = open_page(**PHONE)
    pixel = cell(page, "window", "X", 0)
    pixel.tap()
    assert marked(page, "window", "Y") == [0]
    assert pixel.locator("input").count() == 0
    pixel.tap()
    pixel.locator("input").fill("7")
    page.keyboard.press("Enter")
    assert numbers(page, "window", "Y")[0] == 7


# --- Changing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-2.25", -2.25), ("−3", -3), ("1,5", 1.5), (" +4 ", 4), (".128", 0.13)],
)
def test_an_entry_is_edited(page, text, value):
    before = numbers(page, "window", "Y")
    cell(page, "window", "X", 0).dblclick()
    page.keyboard.insert_text(text)
    page.keyboard.press("Enter")
    after = numbers(page, "window", "Y")
    assert numbers(page, "window", "X")[0] == value
    assert after[0] == pytest.approx(before[0] + value - 1)  # the weight is 1, it was 1
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    "text",
    ["abc", "", "NaN", "1e9", "100", "--3", "1/2", "<b id=x>", "Infinity", "0x1"],
)
def test_nonsense_is_refused_in_words(page, text):
    before = page.evaluate("lesson.arrays('window')")
    cell(page, "window", "X", 0).dblclick()
    page.keyboard.press("Backspace")
    page.keyboard.insert_text(text)
    page.keyboard.press("Enter")
    assert page.evaluate("lesson.arrays('window')") == before
    assert cell(page, "window", "X", 0).inner_text() == "1"
    said = reading(page, "window")
    assert said.startswith("X[0,0] stays 1.")
    assert text in said and "a number from −99 to 99" in said
    assert page.locator("#window .reading b").count() == 0


def test_escape_keeps_what_was_there(page):
    cell(page, "window", "X", 0).dblclick()
    page.keyboard.insert_text("8")
    page.keyboard.press("Escape")
    assert numbers(page, "window", "X")[0] == 1
    assert cell(page, "window", "X", 0).inner_text() == "1"


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("screen", [WIDE, PHONE], ids=["wide", "phone"])
def test_sliders_reach_their_ends_and_everything_still_fits(open_page, scene, screen):
    page = open_page(**screen)
    sliders = page.locator(f"#{scene} input[type=range]")
    for end in "End", "Home", "End":
        for number in range(sliders.count()):
            sliders.nth(number).focus()
            page.keyboard.press(end)
            assert fits(page, scene) == []
        shapes = page.evaluate("id => lesson.arrays(id)", scene)
        for name in page.evaluate("id => lesson.scenes[id].shows", scene):
            assert len(shapes[name]["data"]) > 0, name
    press(page, scene, "Begin again")
    assert fits(page, scene) == []


def fits(page, scene):
    """What is wider than the screen or its cell, and what is too small for a finger."""
    return page.evaluate(
        """(id) => {
            const scene = document.getElementById(id);
            const wrong = [];
            if (document.documentElement.scrollWidth > innerWidth) wrong.push("page");
            for (const each of scene.querySelectorAll("table, button, input, li, math")) {
                const { left, right } = each.getBoundingClientRect();
                if (left < -1 || right > innerWidth + 1) wrong.push(each.outerHTML);
            }
            for (const cell of scene.querySelectorAll("td")) {
                const { width, height } = cell.getBoundingClientRect();
                if (width < 24 || height < 24) wrong.push(`${width} × ${height}`);
                if (cell.scrollWidth > cell.clientWidth + 3) wrong.push(cell.textContent);
            }
            return wrong;
        }""",
        scene,
    )


def test_begin_again_brings_everything_back(page):
    for scene in SCENES:
        before = page.evaluate("id => lesson.arrays(id)", scene)
        for slider in page.locator(f"#{scene} input[type=range]").all():
            slider.focus()
            page.keyboard.press("Home")
        press(page, scene, "Begin again")
        assert page.evaluate("id => lesson.arrays(id)", scene) == before


# --- Keys -----------------------------------------------------------------------------


def test_keys_alone_point_and_edit(page):
    page.locator("#window").get_by_role("button", name="Begin again").focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.closest('[data-array]')?.dataset.array"
    assert page.evaluate(focused) == "X"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert reading(page, "window").startswith("X[1,1] = 1")
    page.keyboard.press("End")
    assert reading(page, "window").startswith("X[1,3] = 1")
    page.keyboard.press("ArrowRight")  # there is no further one
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.keyboard.insert_text("9")
    page.keyboard.press("Enter")
    assert numbers(page, "window", "X")[4] == 9
    assert page.evaluate("document.activeElement.dataset.flat") == "4"
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    assert numbers(page, "window", "X")[4] == 6
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "W"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.dataset.flat") == "4"


def test_the_tab_key_goes_through_the_page_once(page):
    visited = []
    for _ in range(600):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
                const all = [...document.querySelectorAll("*")];
                const active = document.activeElement;
                return active === document.body ? -1 : all.indexOf(active);
            }"""
        )
        if here == -1 or here in visited:
            break
        visited.append(here)
    assert visited == sorted(visited)
    grids = page.locator("table[role=grid]").count()
    assert len(visited) > grids > 80


# --- Play, and check me ---------------------------------------------------------------


def test_play_steps_by_itself_and_pauses(open_page):
    page = open_page(**WIDE, clock=True)
    scene = page.locator("#weights")
    press(page, "weights", "Play the loop")
    assert scene.locator("code.alight").inner_text().strip().startswith("seen = tap(")
    page.clock.run_for(1200)
    assert scene.locator("code.alight").inner_text().strip().startswith("return _product(")
    assert figure(page, "weights", "dW").inner_text().split()[-4:] == ["7", "·", "·", "·"]
    press(page, "weights", "Pause")
    page.clock.run_for(60_000)
    assert "Step 2 of 8" in reading(page, "weights")
    press(page, "weights", "Go on")
    page.clock.run_for(60_000)
    assert "Step 8 of 8" in reading(page, "weights")
    press(page, "weights", "Stop")
    assert scene.locator("code.alight").count() == 0
    assert reading(page, "weights").startswith("dW[0,1] =")


def test_a_step_shows_the_zeros_that_untap_puts_between(page):
    scene = page.locator("#stride")
    for _ in range(2):
        press(page, "stride", "Step")
    assert "spread = lax.pad(" in scene.locator("code.alight").inner_text()
    spread = scene.locator(".now td").all_inner_texts()
    assert len(spread) == 25
    assert all(spread[row * 5 + at] == "0" for row in (1, 3) for at in range(5))


@pytest.mark.parametrize("scene", SCENES)
def test_check_me_hides_asks_and_says_right_or_wrong(page, scene):
    section = page.locator(f"#{scene}")
    press(page, scene, "Check me")
    for _ in range(3):
        question = section.locator("form label").inner_text()
        name = re.match(r"What is (\w+)", question)[1]
        hidden = figure(page, scene, name).locator("td")
        assert set(hidden.all_inner_texts()) == {"?"}
        asked = marked(page, scene, name)
        right = numbers(page, scene, name)[asked[0]]
        box = section.get_by_label(question)
        assert box.evaluate("each => each === document.activeElement")
        box.fill("what?")
        page.keyboard.press("Enter")
        assert "no number" in section.locator("form [role=status]").inner_text()
        box.fill(str(right + 1))
        page.keyboard.press("Enter")
        assert "is not right. It is" in section.locator("form [role=status]").inner_text()
        assert set(hidden.all_inner_texts()) == {"?"}
        box.fill(f"{right:.3f}")
        page.keyboard.press("Enter")
        assert section.locator("form [role=status]").inner_text().startswith("Right")
        assert len(set(hidden.all_inner_texts()) - {"?"}) == 1
        press(page, scene, "Another")
    press(page, scene, "Show all again")
    assert section.locator(".numbers").get_by_text("?", exact=True).count() == 0
    assert not section.locator("form").is_visible()


# --- Whoever reads it -----------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing_wrong(open_page, scheme, screen):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here")
    page = open_page(**screen, color_scheme=scheme)
    for busy in False, True:
        if busy:
            press(page, "stride", "Step")
            press(page, "stride", "Step")
            press(page, "window", "Check me")
            cell(page, "input", "X", 0).dblclick()
        results = axe.Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


def test_dark_mode_is_dark(open_page):
    def brightness(scheme):
        page = open_page(**WIDE, color_scheme=scheme)
        colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colours)[:3]))

    assert brightness("dark") < 150 < 700 < brightness("light")


def test_nothing_moves_by_itself_where_no_motion_is_wished(open_page):
    page = open_page(**WIDE, reduced_motion="reduce", clock=True)
    assert page.get_by_role("button", name="Play the loop").count() == 0
    press(page, "window", "Step")
    page.clock.run_for(60_000)
    assert "Step 1 of" in reading(page, "window")
    cell(page, "window", "Y", 0).hover()
    assert page.evaluate("document.getAnimations().length") == 0
    assert (
        page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    )


def test_it_prints_with_all_its_numbers_and_without_its_controls(open_page):
    page = open_page(**WIDE, color_scheme="dark")
    page.emulate_media(media="print")
    for selector in ".controls", "nav", ".buttons":
        for each in page.locator(selector).all():
            assert not each.is_visible()
    for scene in SCENES:
        assert figure(page, scene, "dX" if scene == "network" else "X").count() in (0, 1)
        assert page.locator(f"#{scene} .reading").is_visible()
    colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours == "rgb(255, 255, 255)"
    pages = page.pdf(format="A4").count(b"/Type /Page\n")
    assert len(SCENES) <= pages <= 4 * len(SCENES)
