"""Meshes and the renderer: truth is what geometry says, without any package's furniture."""

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora.meshes import TEXTURE_SIDE, box, quads
from fourmill.pipeline.corpora.renderer import Frame, renderer
from fourmill.pipeline.corpora.scenes import FAR, Camera, Light, Scene, Thing, place, vector
from fourmill.pipeline.corpora.wavefront import read_mesh

FLOOR, TABLE, SKY = (COARSE_CLASSES.index(each) for each in ("floor", "table", "sky"))
WHITE = np.full((TEXTURE_SIDE, TEXTURE_SIDE, 3), 255, np.uint8)

OBJ = """mtllib thing.mtl
v 0 0 0
v 2 0 0
v 2 4 0
v 0 4 0
v 0 0 1
vt 0 0
vt 1 0
vn 0 0 1
usemtl red
f 1/1/1 2/2/1 3/1/1 4/2/1
usemtl glass
f 1 2 3
usemtl picture
f -5//1 -4//1 -1//1
"""
MTL = """newmtl red
Kd 1 0 0
newmtl glass
d 0.1
newmtl picture
Kd 0 0 0
map_Kd green.png
"""


@pytest.fixture(scope="module")
def frame() -> Frame:
    """A floor, and a box of 1 m on it whose front is 3 m before a camera at half its height."""
    floor = np.array([[(-50, 0, 50), (50, 0, 50), (50, 0, -50), (-50, 0, -50)]], np.float64)
    cube = box((-0.5, 0.0, -0.5), (0.5, 1.0, 0.5), WHITE, 1.0)
    things = [
        Thing(quads(floor, WHITE, 1.0), np.eye(4), FLOOR),
        Thing(cube, place(vector(0, 0, -0.5)), TABLE, "box"),
    ]
    camera = Camera(vector(0, 0.5, 3), vector(0, 0.5, 0), fov=60.0)
    light = Light(vector(-20, 10, 0), np.ones(3), np.zeros(3), np.full(3, 0.3), reach=10.0)
    sky = np.full((4, 8, 3), (90, 140, 230), np.uint8)
    return renderer(64, 64).render(Scene(things, camera, light, vector(0, 0, 0), sky, "field"))


def test_depth_is_metric_along_the_axis(frame: Frame) -> None:
    assert frame.depth[32, 32] == pytest.approx(3.0, abs=1e-3)
    assert frame.depth[20, 32] == FAR
    # row 60's first sample sees the floor at 0.5 m / tan(angle below the axis)
    slope = (2 * (60 * 2 + 0.5) / 128 - 1) * np.tan(np.radians(30))
    assert frame.depth[60, 2] == pytest.approx(0.5 / slope, rel=1e-3)


def test_normals_point_to_the_viewer_with_y_up(frame: Frame) -> None:
    assert frame.normal[32, 32].tolist() == [128, 128, 255]
    assert frame.normal[60, 2].tolist() == [128, 255, 128]
    assert frame.normal[5, 5].tolist() == [128, 128, 255]  # the sky's


def test_classes_and_instances_say_what_is_where(frame: Frame) -> None:
    assert frame.names == ("box",)
    assert (frame.classes[32, 32], frame.instances[32, 32]) == (TABLE, 1)
    assert (frame.classes[60, 2], frame.instances[60, 2]) == (FLOOR, 0)
    assert frame.classes[5, 5] == SKY
    assert np.abs(frame.rgb[2, 2].astype(int) - (90, 140, 230)).max() <= 1
    # 1 m at 3 m with 60 degrees over 64 pixels: 18.5 pixels wide
    assert np.count_nonzero(frame.instances[32]) in (18, 19)


def test_the_sun_from_the_left_throws_a_shadow_to_the_right(frame: Frame) -> None:
    lit, shaded = (int(frame.rgb[40, column].sum()) for column in (8, 56))
    assert frame.classes[40, 8] == frame.classes[40, 56] == FLOOR
    assert shaded < 0.8 * lit


def test_an_obj_file_becomes_metric_triangles_without_its_glass() -> None:
    buffer, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (3, 3), (0, 200, 0)).save(picture, "PNG")
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/thing.obj", OBJ)
        archive.writestr("a/thing.mtl", MTL)
        archive.writestr("a/green.png", picture.getvalue())
        mesh = read_mesh(archive, "a/thing.obj", (1.0, 2.0, 0.5))
    assert len(mesh.triangles) == 3  # a quad is two; the pane is left out
    assert mesh.low.tolist() == pytest.approx([-0.5, 0, -0.25])
    assert mesh.high.tolist() == pytest.approx([0.5, 2, 0.25])
    corners = mesh.vertices[mesh.triangles[0]]
    assert corners["tint"].tolist() == [[255, 0, 0]] * 3
    assert corners["layer"].tolist() == [0, 0, 0]
    textured = mesh.vertices[mesh.triangles[2]]
    assert textured["tint"].tolist() == [[255, 255, 255]] * 3  # black beside a texture means white
    assert mesh.textures[textured["layer"][0], 0, 0].tolist() == [0, 200, 0, 255]


def test_a_process_that_has_rendered_can_load_networks() -> None:
    """In a process of its own: what goes wrong ends it."""
    words = "import fourmill.pipeline.corpora.renderer as r; r.renderer(8, 8); import torch._dynamo"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
