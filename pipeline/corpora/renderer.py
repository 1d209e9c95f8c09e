"""Pictures of scenes with their exact truth: OpenGL through `moderngl`, without GPU or screen.

EGL with Mesa's llvmpipe is enough. Colours are means of four samples a pixel; depth, normals and
ids are those of one sample, so that no value is a mixture.
"""

import importlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8, UInt16
from numpy.typing import NDArray

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.meshes import TEXTURE_SIDE, Mesh
from fourmill.pipeline.corpora.scenes import FAR, Scene, Thing, Vector
from fourmill.pipeline.corpora.shaders import (
    FRAGMENT_SHADER,
    SHADOW_FRAGMENT_SHADER,
    SHADOW_VERTEX_SHADER,
    VERTEX_SHADER,
)

SAMPLES = 2  # a side of each pixel
SHADOW_SIDE = 512
NEAR = 0.04
KEPT_MODELS = 250  # of about half a megabyte each

_LAYOUT = "3f 3f 2f 4f1"
_SKY = COARSE_CLASSES.index("sky")


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture and what is exactly known of it.

    Attributes:
        depth: metres along the camera's axis, at most `FAR`, which is also the sky's.
        normal: `round(127.5 * (n + 1))`, x right, y up, z to the viewer, of the geometry's faces;
            the sky's point to the viewer, (128, 128, 128) is unknown (cut-out photographs).
        classes: indices in `COARSE_CLASSES`.
        instances: 1 + index in `names`, 0 for walls, ground and sky.
        names: what captions call the instances.
    """

    rgb: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    normal: UInt8[np.ndarray, "height width 3"]
    classes: UInt8[np.ndarray, "height width"]
    instances: UInt16[np.ndarray, "height width"]
    names: tuple[str, ...]


@lru_cache(maxsize=2)
def renderer(height: int, width: int) -> "Renderer":
    """This process's renderer for that size."""
    return Renderer(height, width)


class Renderer:
    """An OpenGL context with its buffers.

    Raises:
        MissingPackageError: there is no moderngl or no EGL.
    """

    def __init__(self, height: int, width: int) -> None:
        # Mesa's and Triton's LLVM share their symbols: loaded second, Triton's ends the process,
        # and torch loads it in a worker that renders first and labels then
        with suppress(ImportError):
            importlib.import_module("triton")
        # frames are made in parallel by processes; threads inside would only disturb them
        os.environ.setdefault("LP_NUM_THREADS", "1")
        try:
            import moderngl

            create: Any = moderngl.create_context  # whose annotations forbid `backend`
            self._gl = create(standalone=True, backend="egl")
        except Exception as error:  # ctypes, EGL and moderngl each raise kinds of their own
            raise MissingPackageError(
                f"rooms need moderngl and EGL ({error}): run `pip install 'fourmill[rooms]'` and, "
                f"on Debian, `apt-get install libegl1 libgl1-mesa-dri`"
            ) from error
        gl = self._gl
        self._size = (width * SAMPLES, height * SAMPLES)
        self._program: Any = gl.program(VERTEX_SHADER, FRAGMENT_SHADER)
        self._shadow_program: Any = gl.program(SHADOW_VERTEX_SHADER, SHADOW_FRAGMENT_SHADER)
        self._targets = [
            gl.texture(self._size, 4), gl.texture(self._size, 4, dtype="f4"),
            gl.texture(self._size, 4),
        ]  # fmt: skip
        self._buffer = gl.framebuffer(self._targets, gl.depth_renderbuffer(self._size))
        self._shadow = gl.depth_texture((SHADOW_SIDE, SHADOW_SIDE))
        self._shadow.compare_func = "<="
        self._shadow_buffer = gl.framebuffer(depth_attachment=self._shadow)
        self._models: OrderedDict[str, _Loaded] = OrderedDict()
        gl.enable(moderngl.DEPTH_TEST)

    def render(self, scene: Scene) -> Frame:
        """The scene as its camera sees it."""
        loaded = [self._load(each.mesh) for each in scene.things]
        light_view = _light_view(scene)
        self._draw_shadows(scene, loaded, light_view)
        self._draw(scene, loaded, light_view)
        for thing, each in zip(scene.things, loaded, strict=True):
            if isinstance(thing.mesh, Mesh):
                each.release()
        while len(self._models) > KEPT_MODELS:
            self._models.popitem(last=False)[1].release()
        return self._read(scene)

    def _load(self, mesh: Mesh | Model) -> "_Loaded":
        if isinstance(mesh, Mesh):
            return _Loaded(self._gl, mesh, self._program, self._shadow_program)
        if mesh.id not in self._models:
            self._models[mesh.id] = _Loaded(
                self._gl, mesh.mesh(), self._program, self._shadow_program
            )
        self._models.move_to_end(mesh.id)
        return self._models[mesh.id]

    def _draw_shadows(
        self, scene: Scene, loaded: list["_Loaded"], light_view: NDArray[np.float64]
    ) -> None:
        self._shadow_buffer.use()
        self._shadow_buffer.clear()
        program = self._shadow_program
        program["light_view"].write(_bytes(light_view))
        self._gl.polygon_offset = 2.0, 4.0  # else faces shadow themselves
        for thing, each in zip(scene.things, loaded, strict=True):
            program["place"].write(_bytes(thing.place))
            each.draw_shadow()
        self._gl.polygon_offset = 0.0, 0.0

    def _draw(self, scene: Scene, loaded: list["_Loaded"], light_view: NDArray[np.float64]) -> None:
        self._buffer.use()
        self._buffer.clear()
        program, light, view = self._program, scene.light, scene.camera.view()
        program["view"].write(_bytes(view))
        program["projection"].write(
            _bytes(_perspective(scene.camera.fov, self._size[0] / self._size[1], NEAR, 400.0))
        )
        program["light_view"].write(_bytes(light_view))
        program["lamp"].value = tuple(view[:3, :3] @ light.position + view[:3, 3])
        program["up"].value = tuple(view[:3, 1])
        program["lamp_colour"].value = tuple(light.colour)
        program["fill"].value = tuple(light.fill)
        program["ambient"].value = tuple(light.ambient)
        program["lamp_range"].value = 0.0 if light.reach else 2.5
        program["exposure"].value = light.exposure
        program["haze"].value = light.haze
        program["horizon"].value = tuple(scene.sky[-1].mean(0) / 255)
        self._shadow.use(1)
        program["pictures"].value, program["shadow"].value = 0, 1
        numbers = np.cumsum([bool(each.name) for each in scene.things])
        for index in _front_to_back(scene.things, view):
            thing = scene.things[index]
            program["place"].write(_bytes(thing.place))
            program["gloss"].value = thing.gloss
            program["instance"].value = float(numbers[index] if thing.name else 0)
            program["klass"].value = float(thing.klass)
            loaded[index].draw()

    def _read(self, scene: Scene) -> Frame:
        width, height = self._size
        colour, geometry, ids = (
            np.frombuffer(target.read(), dtype).reshape(height, width, 4)[::-1]
            for target, dtype in zip(self._targets, (np.uint8, np.float32, np.uint8), strict=True)
        )
        shown = colour[..., :3]
        if not ids[..., 3].all():
            shown = np.where(ids[..., 3:] == 0, _sky_pixels(scene, height, width), shown)
        size = (width // SAMPLES, height // SAMPLES)
        rgb = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
        geometry, ids = geometry[::SAMPLES, ::SAMPLES], ids[::SAMPLES, ::SAMPLES]
        empty = ids[..., 3] == 0
        depth = np.where(empty, FAR, np.minimum(geometry[..., 3], FAR)).astype(np.float32)
        normal = np.where(empty[..., None], np.array([0, 0, 1], np.float32), geometry[..., :3])
        return Frame(
            rgb=rgb,
            depth=depth,
            normal=np.round(127.5 * (normal + 1)).astype(np.uint8),
            classes=np.where(empty, _SKY, ids[..., 1]).astype(np.uint8),
            instances=np.where(empty, 0, ids[..., 0]).astype(np.uint16),
            names=tuple(each.name for each in scene.things if each.name),
        )


class _Loaded:
    """A mesh in OpenGL's memory."""

    def __init__(self, gl: Any, mesh: Mesh, program: Any, shadow_program: Any) -> None:
        layers = len(mesh.textures)
        pixels = np.ascontiguousarray(mesh.textures)
        self._pictures = gl.texture_array((TEXTURE_SIDE, TEXTURE_SIDE, layers), 4, pixels)
        self._pictures.build_mipmaps()
        vertices = gl.buffer(mesh.vertices.tobytes())
        indices = gl.buffer(mesh.triangles.tobytes())
        self._array = gl.vertex_array(
            program, [(vertices, _LAYOUT, "position", "normal", "uv", "tint")], indices
        )
        self._shadow_array = gl.vertex_array(
            shadow_program, [(vertices, "3f 12x 2f 4f1", "position", "uv", "tint")], indices
        )
        self._parts = (self._pictures, self._array, self._shadow_array, vertices, indices)

    def draw(self) -> None:
        self._pictures.use(0)
        self._array.render()

    def draw_shadow(self) -> None:
        self._pictures.use(0)
        self._shadow_array.render()

    def release(self) -> None:
        for each in self._parts:
            each.release()


def _front_to_back(things: Sequence[Thing], view: NDArray[np.float64]) -> list[int]:
    """The order in which little is painted over; without what lies behind or beside the view."""
    depths = {}
    for index, thing in enumerate(things):
        if isinstance(thing.mesh, Mesh):
            depths[index] = 1e6 if not thing.name else 0.0
        else:
            x, y, z = view[:3] @ thing.place[:, 3]
            reach = 1.3 * float(np.linalg.norm(thing.mesh.size))  # trees may be a quarter larger
            if -z > -reach and np.hypot(x, y) < 1.6 * (reach - z):
                depths[index] = -z
    return sorted(depths, key=lambda index: depths[index])


def _bytes(matrix: NDArray[np.float64]) -> bytes:
    """OpenGL keeps matrices by columns."""
    return np.ascontiguousarray(matrix.T, np.float32).tobytes()


def _perspective(fov: float, aspect: float, near: float, far: float) -> NDArray[np.float64]:
    scale = 1 / np.tan(np.radians(fov) / 2)
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1], matrix[3, 2] = scale / aspect, scale, -1
    matrix[2, 2:] = (far + near) / (near - far), 2 * far * near / (near - far)
    return matrix


def _light_view(scene: Scene) -> NDArray[np.float64]:
    """From the world to the shadow map: parallel rays for a sun, a wide pyramid for a lamp."""
    light = scene.light
    view = _look(light.position, scene.middle)
    if not light.reach:
        return _perspective(120.0, 1.0, 0.1, 20.0) @ view
    distance = float(np.linalg.norm(light.position - scene.middle))
    matrix = np.diag([1 / light.reach, 1 / light.reach, -1 / (2 * light.reach), 1.0])
    matrix[2, 3] = -distance / (2 * light.reach)
    return np.asarray(matrix @ view)


def _look(eye: Vector, target: Vector) -> NDArray[np.float64]:
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0] if abs(back[1]) > 0.9 else [0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(back, right), back])
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def _sky_pixels(scene: Scene, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """What of the sky's panorama lies behind each sample."""
    slope = np.tan(np.radians(scene.camera.fov) / 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x = (2 * (x + 0.5) / width - 1) * slope * width / height
    y = (1 - 2 * (y + 0.5) / height) * slope
    to_world = scene.camera.view()[:3, :3].T.astype(np.float32)
    rays = np.stack([x, y, np.full_like(x, -1)], -1) @ to_world.T
    elevation = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    rows, columns = scene.sky.shape[:2]
    at_y = (1 - np.clip(elevation / (np.pi / 2), 0, 1)) * (rows - 1)
    at_x = (azimuth / (2 * np.pi) + 0.5) * columns
    return np.asarray(
        cv2.remap(scene.sky, at_x.astype(np.float32), at_y.astype(np.float32),
                  cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    )  # fmt: skip
