"""GLSL of the renderer."""

VERTEX_SHADER = """
#version 330
uniform mat4 place, view, projection, light_view;
in vec3 position; in vec3 normal; in vec2 uv; in vec4 tint;
out vec3 eye, shade_normal, tone, world; out vec2 texel; out float layer; out vec4 lit;
void main() {
    vec4 at = place * vec4(position, 1.0);
    world = at.xyz;
    vec4 seen = view * at;
    eye = seen.xyz;
    shade_normal = mat3(view) * (mat3(transpose(inverse(place))) * normal);
    texel = uv; tone = tint.rgb; layer = floor(tint.a * 255.0 + 0.5);
    lit = light_view * at;
    gl_Position = projection * seen;
}
"""

FRAGMENT_SHADER = """
#version 330
uniform sampler2DArray pictures;
uniform sampler2DShadow shadow;
uniform vec3 lamp, lamp_colour, fill, ambient;   // lamp in camera coordinates
uniform vec3 up;                                 // the world's up in camera coordinates
uniform vec3 horizon;
uniform float haze, lamp_range, gloss, exposure, instance, klass;
in vec3 eye, shade_normal, tone, world; in vec2 texel; in float layer; in vec4 lit;
layout(location=0) out vec4 colour;
layout(location=1) out vec4 geometry;
layout(location=2) out vec4 ids;

float lightness(vec3 n, vec3 to_lamp) {
    vec3 at = lit.xyz / lit.w * 0.5 + 0.5;
    if (lit.w <= 0.0 || any(lessThan(at, vec3(0.0))) || any(greaterThan(at, vec3(1.0)))) return 1.0;
    float sum = 0.0;
    for (int i = 0; i < 4; i++) {
        vec2 offset = (vec2(float(i % 2), float(i / 2)) - 0.5) * 0.0025;
        sum += texture(shadow, vec3(at.xy + offset, at.z));
    }
    return sum * 0.25;
}

void main() {
    vec4 base = texture(pictures, vec3(texel, layer));
    if (base.a < 0.4) discard;
    vec3 face = normalize(cross(dFdx(eye), dFdy(eye)));
    if (dot(face, eye) > 0.0) face = -face;
    vec3 n = dot(shade_normal, shade_normal) > 0.0 ? normalize(shade_normal) : face;
    if (dot(n, face) < 0.0) n = -n;
    vec3 albedo = base.rgb * tone;
    albedo *= albedo;  // gamma 2 for 2.2: much cheaper, hardly different
    vec3 to_lamp = lamp - eye;
    float distance2 = dot(to_lamp, to_lamp);
    to_lamp = normalize(to_lamp);
    float range2 = lamp_range * lamp_range;
    float falloff = range2 > 0.0 ? range2 / (range2 + distance2) : 1.0;
    float direct = max(dot(n, to_lamp), 0.0) * falloff;
    float visible = direct > 0.0 ? lightness(n, to_lamp) : 0.0;
    vec3 viewer = normalize(-eye);
    float shine = gloss * falloff;
    if (shine > 0.0) {
        float peak = max(dot(n, normalize(to_lamp + viewer)), 0.0);
        peak *= peak; peak *= peak; peak *= peak; peak *= peak;
        shine *= peak * peak;
    }
    vec3 light = ambient * (0.75 + 0.25 * dot(n, up)) + fill * max(dot(n, viewer), 0.0)
               + lamp_colour * direct * visible;
    vec3 shaded = albedo * light + lamp_colour * shine * visible;
    shaded = vec3(1.0) - exp(-exposure * shaded);
    colour = vec4(mix(horizon, sqrt(shaded), exp(haze * eye.z)), 1.0);
    geometry = vec4(face, -eye.z);
    ids = vec4(instance / 255.0, klass / 255.0, 0.0, 1.0);
}
"""

SHADOW_VERTEX_SHADER = """
#version 330
uniform mat4 place, light_view;
in vec3 position; in vec2 uv; in vec4 tint;
out vec2 texel; out float layer;
void main() {
    texel = uv; layer = floor(tint.a * 255.0 + 0.5);
    gl_Position = light_view * (place * vec4(position, 1.0));
}
"""

SHADOW_FRAGMENT_SHADER = """
#version 330
uniform sampler2DArray pictures;
in vec2 texel; in float layer;
void main() { if (texture(pictures, vec3(texel, layer)).a < 0.4) discard; }
"""
