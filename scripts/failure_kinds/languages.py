"""Normal answers that look like gibberish: languages, mathematics, translations, unusual signs."""

from __future__ import annotations

from scripts.failure_kinds.labelled import Groups

LANGUAGES: Groups = {
    "Japanese": [
        "ユーザーはサーバーにログインして、PDF と CSV をダウンロードします。",
        "我々は度々 Osaka や Kyoto を訪れる。様々な人々と会う。",
        "ﾌﾟﾘﾝﾀｰの電源を入れてください。USBｹｰﾌﾞﾙをPCに接続します。",
        "コーヒーを一杯飲みながら、スケジュールを確認した。ＡＢＣ社のＣＥＯが来る。",
        "α線とβ線とγ線の違いを説明する。エネルギーはMeVで表す。",
        "ヽ(・∀・)ノ ワーイ！ データセンターへようこそ、WiFi あります。",
        "時間は１２時３０分です。ビールを２本、ワインを３本ください。Total 5 本。",
        "いすゞ自動車と金子みすゞ、こゝろ。Natsume の作品です。",
    ],
    "Chinese and Korean": [
        "Python 是一种语言。用 pip 安装 NumPy，然后运行 main.py，结果是 18。",
        "注音符號：ㄅㄆㄇㄈ，拼音是 bo po mo fo，漢字是「玻坡摸佛」。",
        "大韓民國(대한민국)은 民主共和國이다. The constitution says so.",
        "世宗大王이 訓民正音을 創製하였다. Hangul Day is in October.",
        "삼성은 TV와 PC를 만든다. LG는 OLED를 만든다. 韓國 기업이다.",
        "서울(首爾, Seoul)과 부산(釜山, Busan)은 한국의 큰 도시다.",
        "日本語で「愛」、한국어로 '사랑', 中文是“爱”, in English 'love'.",
        "㈜한국은 ①번, ②번, ③번 문제를 풀었다. 답은 18이다.",
    ],
    "mathematics": [
        "Let f: ℝⁿ → ℝ be smooth and let ℒ be its Lagrangian on 𝔐.",
        "The cardinals ℵ₀, ℵ₁ and ℶ₂; the real part ℜ(z) and ℑ(z).",
        "ℓ¹ ⊂ ℓ² ⊂ ℓ^∞, and ∀ε>0 ∃δ>0.",
        "For all 𝑥 ∈ ℤ, 𝑦 ∈ ℚ, 𝑧 ∈ ℂ: 𝑥𝑦𝑧 ≠ 0 ⇒ ℏ > 0.",
        "ℕ ⊂ ℤ ⊂ ℚ ⊂ ℝ ⊂ ℂ ⊂ ℍ ⊂ 𝕆",
        "𝓕(𝐮) = ∫ e^{−iξx} u(x) dx, ξ ∈ ℝ, and 𝔰𝔲(2) ≅ 𝔰𝔬(3).",
        "∂ψ/∂t = −(i/ℏ) Ĥψ, 5 Å, 3 Ω, 7 µm, 300 K",
        "℘(z; ω₁, ω₂) is elliptic; ∇·E = ρ/ε₀; x̄ ≈ 3.2, σ̂² = 1.4",
        "Ш(E) is the Tate–Shafarevich group and ℓ a prime; ℤ_ℓ(1) acts.",
        "1º 2ª 3º: №5, ™, ℠, ℡ and 100 ℃ = 212 ℉.",
    ],
    "translations": [
        "Hello is привет in Russian, שלום in Hebrew and नमस्ते in Hindi.",
        "Cat: кошка (Russian), חתול (Hebrew), قطة (Arabic), 猫 (Chinese), แมว (Thai).",
        "The word water: English water, Russian вода, Arabic ماء, Korean 물, Japanese 水.",
        "'Thank you' is спасибо in Russian, ευχαριστώ in Greek, धन्यवाद in Hindi, ขอบคุณ in Thai, 감사합니다 in "
        "Korean, ありがとう in Japanese, شكرا in Arabic and תודה in Hebrew.",
        "| English | Russian | Hebrew | Arabic |\n|---|---|---|---|\n| bread | хлеб | לחם | خبز |\n| milk | молоко "
        "| חלב | حليب |\n| house | дом | בית | بيت |\n| sun | солнце | שמש | شمس |\n| moon | луна | ירח | قمر |\n"
        "| star | звезда | כוכב | نجمة |\n",
        "Russian: Мы пошли в магазин и купили хлеб, молоко и масло.\nHebrew: הלכנו לחנות וקנינו לחם, חלב וחמאה.\n"
        "Arabic: ذهبنا إلى المتجر واشترينا الخبز والحليب.\nEnglish: We went to the shop.",
        "“和平”的俄语是 мир，希伯来语是 שלום，阿拉伯语是 سلام，英语是 peace。",
        "El alfabeto griego: α, β, γ; el cirílico: а, б, в, г; el hebreo: א, ב, ג, ד; el árabe: ا, ب, ت.",
        "Москва is the capital of Russia, תל אביב is in Israel, القاهرة in Egypt and Αθήνα in Greece.",
        "१२३ are Devanagari digits, ١٢٣ Arabic ones, ๑๒๓ Thai ones; मराठी, العربية and ไทย are languages.",
        "water - вода - מים - ماء\nfire - огонь - אש - نار\nearth - земля - אדמה - أرض\nair - воздух - אוויר - هواء",
        "Names of the language: English, русский, العربية, हिन्दी, 中文, 한국어, ไทย, עברית, ქართული, հայերեն.",
        "In Russian peace is мир and in Hebrew it is שלום. In Russian bread is хлеб and in Hebrew it is לחם. "
        "In Russian milk is молоко and in Hebrew it is חלב.",
    ],
    "other scripts": [
        "Ферма собирает 16 яиц в день. Ответ: \\boxed{18} долларов (USD).",
        "الدجاج يضع ست عشرة بيضة كل يوم. الجواب هو 18 دولارا (USD).",
        "मुर्गियाँ हर दिन सोलह अंडे देती हैं। उत्तर \\boxed{18} है। (API, JSON)",
        "ไก่ออกไข่วันละสิบหกฟอง คำตอบคือ \\boxed{18} ดอลลาร์ (USD)",
        "התרנגולות מטילות שש עשרה ביצים ביום. התשובה היא \\boxed{18}.",
        "ქათმები დღეში თექვსმეტ კვერცხს დებენ. პასუხი: 18 (USD).",
        "ዶሮዎች በቀን አሥራ ስድስት እንቁላል ይጥላሉ። መልሱ 18 ነው። (USD)",
        "கோழிகள் தினமும் பதினாறு முட்டைகள் இடுகின்றன. விடை 18 ஆகும். (USD)",
        "Οι κότες γεννούν δεκαέξι αυγά την ημέρα. Η απάντηση είναι \\boxed{18} (USD).",
        "Những con gà đẻ mười sáu quả trứng mỗi ngày. Đáp án là 18.",
        "Lietuviškai ąčęėįšųūž, česky ěščřžýáíé, türkçe ğüşıöç, íslenska þæð.",
        "Київ їсть борщ; Беларусь піша па-беларуску ўсё; Српски: ћирилица и latinica.",
    ],
}
SIGNS: Groups = {
    "signs": [
        "\uf0a7 milk\n\uf0a7 eggs\n\uf0a7 bread\n\uf0a7 salt",
        "\uf0fc done\n\uf0fc also done\n\uf06f not yet",
        "Menu:\n \uf0d8\tsoup of the day\n \uf0d8\tpie\n \uf0d8\ttea",
        "See page 5 \uf0e0 next chapter \uf0e0 the end \uf0e0 index",
        "A harp \U0001fa89 and a root vegetable \U0001fadc, new signs \U0001fade\U0001fadf",
        "New faces \U0001fae9\U0001faea\U0001fae9 in 2025",
        "\x1b[31merror\x1b[0m: 3 files \x1b[1;32mok\x1b[0m, \x1b[33m1 warning\x1b[0m",
        "\x1b[1m\x1b[34m==>\x1b[0m \x1b[1mInstalling\x1b[0m\n\x1b[K100%",
        "The na\ufffdve approach costs 18 dollars, as the caf\ufffd on the corner says, for each of us.",
        "👩🏽‍🚀 and 👨‍👩‍👧‍👦 flew to the moon with 🏴‍☠️ and 🇩🇪🇯🇵.",
        "Zażółć gęślą jaźń; ça va; Ångström; smørrebrød; œuvre.",
        "e\u0301te\u0301 and n\u0303 and a\u0308 are written with combining marks, o\u0302 too.",
        "“Quotes” – dashes — and … ellipses, 5′ 10″, 30° C, ½ cup, © 2024, §3, ¶2.",
        "Line one\r\nLine two\r\n\tindented\x0cnew page with a form feed",
        "\ufeffThe file starts with a byte order mark and goes on.",
        "soft\u00adhyphen zero\u200bwidth left\u200e-to-\u200fright marks\u2060here",
        "♔♕♖♗♘♙ and ♚♛♜♝♞♟ play; ♠♥♦♣; ☀☁☂☃; ✓✗✘; →←↑↓",
        "⠓⠑⠇⠇⠕ is hello in Braille; ♩♪♫♬ is music; ⚀⚁⚂⚃ are dice.",
        "IPA: /ˈwɔːtə/, [ʃəˈkɑːɡoʊ], /ɲ/ and /ʒ/, ʔ, ɾ, θ, ð.",
        "T̶h̶i̶s̶ is struck through, and t̲h̲i̲s̲ is underlined.",
        "fullwidth ＡＢＣ１２３ and small caps ᴀʙᴄ, ⓐⓑⓒ, 𝕬𝖇𝖈, ᵃᵇᶜ",
        "Press ⌘C, ⌥⇧⌃ and ␣; ⏎; ⎋; F1–F12.",
        "𓀀𓁐 is Egyptian, 𐎀𐎁 Ugaritic, 𒀀𒀁 cuneiform, ᚠᚢᚦ runic.",
    ],
}
